"""One compose project of its own: its secrets, its ports, its commands, its callers."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stack.demo.client import Target
from tests.gateway.running import free_port

ROOT = Path(__file__).resolve().parents[2]
UP_SECONDS = 1200  # building included, on a small machine that does something else too


def engine_answers() -> bool:
    """Whether there is a Docker engine with compose that this user may use."""
    try:
        for command in (["docker", "info"], ["docker", "compose", "version"]):
            subprocess.run(command, check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def docker(*words: str) -> str:
    """`docker …`; its output."""
    done = subprocess.run(["docker", *words], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"docker {' '.join(words)}:\n{done.stdout}{done.stderr}"
    return done.stdout.strip()


def bridge_address() -> str:
    """This machine as containers of any network reach it."""
    return docker("network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}")


@dataclass(frozen=True)
class Project:
    """A compose project whose values lie in `environment_file`."""

    name: str
    environment_file: Path

    @classmethod
    def make(cls, name: str, folder: Path, **more: str) -> "Project":
        """With secrets from deploy/secrets.sh, free ports and a worker on the CPU; `more` counts last."""
        folder.mkdir(exist_ok=True)
        file = folder / "compose.env"
        subprocess.run(["sh", str(ROOT / "deploy" / "secrets.sh"), str(file)], check=True)
        gateway, s3 = free_port(), free_port()
        chosen = {
            "GATEWAY_PORT": gateway,
            "S3_PORT": s3,
            "S3_PUBLIC_URL": f"http://127.0.0.1:{s3}",
            "COMPOSE_PROFILES": "cpu",
            "WORKER_VARIANT": "cpu",
            "WORKER_RUNTIME": "runc",
        }
        with file.open("a") as lines:
            lines.writelines(f"{variable}={value}\n" for variable, value in (chosen | more).items())
        return cls(name, file)

    @property
    def environment(self) -> dict[str, str]:
        """What makes `docker compose`, and the scripts of deploy/ that call it, mean this project."""
        return os.environ | {
            "COMPOSE_PROJECT_NAME": self.name,
            "COMPOSE_ENV_FILES": str(self.environment_file),
        }

    @property
    def values(self) -> dict[str, str]:
        """The variables of the project; of two with one name the later one counts, as with compose."""
        lines = [line for line in self.environment_file.read_text().splitlines() if "=" in line]
        return dict(line.split("=", 1) for line in lines if not line.startswith("#"))

    def run(self, *command: str, seconds: float = UP_SECONDS) -> str:
        """Run a command about this project; its output. Fails with what it said."""
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout

    def compose(self, *words: str) -> str:
        """`docker compose …`; its output."""
        return self.run("docker", "compose", *words)

    def containers(self, service: str = "") -> list[dict[str, Any]]:
        """What `docker compose ps` tells of each running container."""
        words = ["ps", "--format", "json", *([service] if service else [])]
        return [json.loads(line) for line in self.compose(*words).splitlines()]

    @property
    def url(self) -> str:
        """Where the gateway is."""
        return f"http://127.0.0.1:{self.values['GATEWAY_PORT']}"

    @property
    def target(self) -> Target:
        """The gateway and the administrator."""
        values = self.values
        return Target(self.url, values["ADMIN_API_KEY"], values["ADMIN_USERNAME"], values["ADMIN_PASSWORD"])
