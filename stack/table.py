"""The table of processes: what runs beside the stores, with which environment, and when each is ready."""

import os
import secrets
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from stack import readiness
from stack.binaries import find
from stack.failures import StackError
from stack.ports import HOST
from stack.program import Program
from stack.secrets import ADMIN_USERNAME, Secrets
from stack.settings import BUCKET, ROOT, Settings
from stack.stores import REGION, STORES, S3Keys, mongodb_url, stores

GUNICORN_CONFIG = "services/common/gunicorn_config.py"


@dataclass(frozen=True)
class Service:
    """A Flask service; `tasks`: it has a Celery worker beside it."""

    name: str
    tasks: bool = True


SERVICES = (
    Service("users", tasks=False),
    Service("checkpoints"),
    Service("endpoints"),
    Service("inference"),
    Service("datasets"),
    Service("training"),
)


def ending_order(names: Sequence[str]) -> list[list[str]]:
    """Who calls others ends first: a GPU worker gives its job back, then services end, then stores."""
    serving = {service.name for service in SERVICES} | {f"{service.name}-tasks" for service in SERVICES}
    return [
        [name for name in names if name not in serving and name not in STORES],
        [name for name in names if name in serving],
        [name for name in names if name in STORES],
    ]


WORKER_VARIABLES = ("ENDPOINTS_URL", "INFERENCE_URL", "TRAINING_URL", "REDIS_URL", "WORKER_SECRET")


@dataclass(frozen=True)
class Table:
    """The declared processes of one stack."""

    folder: Path
    settings: Settings
    secrets: Secrets
    run: str  # marks the GPU workers of this start

    @classmethod
    def make(cls, folder: Path, settings: Settings, its_secrets: Secrets) -> "Table":
        """The table of a stack that starts now."""
        return cls(folder, settings, its_secrets, run=secrets.token_hex(2))

    def stores(self) -> list[Program]:
        """MongoDB, S3 and Redis: everything else needs them."""
        keys = S3Keys(self.secrets.s3_access_key, self.secrets.s3_secret_key)
        return stores(self.folder, self.settings.store_ports, keys, BUCKET)

    def others(self) -> list[Program]:
        """The services, their tasks, beat and the gateway: they start once the stores are ready."""
        programs = [self._service(service) for service in SERVICES]
        programs += [self._tasks(service) for service in SERVICES if service.tasks]
        return [*self._shown(programs), self._beat(), self._gateway()]

    def workers(self) -> list[Program]:
        """The GPU workers; they wait for the others themselves."""
        first = len(SERVICES) + sum(service.tasks for service in SERVICES)
        programs = [self._worker(number + 1) for number in range(self.settings.workers)]
        return self._shown(programs, first)

    def _shown(self, programs: list[Program], first: int = 0) -> list[Program]:
        """The programs with a port for the metrics of each, where they are wanted."""
        if not self.settings.metrics_port:
            return programs
        return [
            replace(program, environment={**program.environment, **self._listening(program, place)})
            for place, program in enumerate(programs, first)
        ]

    def _listening(self, program: Program, place: int) -> dict[str, str]:
        folder = self.folder / "metrics" / program.name
        return {
            "METRICS_LISTEN": f"{HOST}:{self.settings.metrics_port + place}",
            "PROMETHEUS_MULTIPROC_DIR": str(folder),
        }

    def programs(self) -> list[Program]:
        """All of them."""
        return self.stores() + self.others() + self.workers()

    def _service(self, service: Service) -> Program:
        url = self.settings.url(service.name)
        return Program(
            service.name,
            _python(
                "gunicorn",
                "-c",
                GUNICORN_CONFIG,
                "--no-control-socket",
                f"services.{service.name}.app:create_app()",
            ),
            ready=lambda: readiness.service_answers(url),
            environment=self._environment() | {"LISTEN": f"{HOST}:{self.settings.ports[service.name]}"},
            stop_seconds=15,
        )

    def _tasks(self, service: Service) -> Program:
        node = f"{service.name}@sdfleet"
        command = _python(
            *("celery", "-A", f"services.{service.name}.tasks", "worker", "-Q", service.name, "-n", node),
            *("--concurrency", "2", "--without-mingle", "--without-gossip", "--without-heartbeat"),
        )
        return Program(
            f"{service.name}-tasks",
            command,
            ready=lambda: readiness.celery_answers(self._redis_url, node),
            environment=self._environment(),
        )

    def _beat(self) -> Program:
        return Program(
            "beat",
            # its intervals are seconds long: a schedule kept on disk would save nothing
            _python(
                "celery", "-A", "services.common.beat", "beat", "-S", "celery.beat:Scheduler", "--pidfile="
            ),
            ready=None,
            environment=self._environment(),
        )

    def _worker(self, number: int) -> Program:
        worker_id = f"worker-{number}-{self.run}"
        cache = self.folder / "workers" / str(number)
        # A GPU worker gets no secret but its own: it may run on somebody else's machine.
        given = {name: self._environment()[name] for name in WORKER_VARIABLES}
        environment = given | {"WORKER_ID": worker_id, "WORKER_CACHE_DIR": str(cache)}
        return Program(
            f"worker-{number}",
            _python("gpu_worker"),
            ready=lambda: readiness.worker_is_registered(
                self.settings.url("endpoints"), self.secrets.service_secret, worker_id
            ),
            environment=environment,
            ready_seconds=400,  # importing PyTorch takes minutes on a machine that is busy
            stop_seconds=25,
        )

    def _gateway(self) -> Program:
        folder = self.folder / "gateway"
        url = self.settings.url("gateway")
        return Program(
            "gateway",
            (str(find("nginx")), "-p", str(folder), "-c", "nginx.conf", "-g", "daemon off;"),
            ready=lambda: readiness.gateway_answers(url, self.secrets.api_key),
            stop_signal="QUIT",
            stop_seconds=5,
        )

    def render_gateway(self) -> None:
        """Write the gateway's nginx.conf. Raises StackError with what the script says when it fails."""
        folder = self.folder / "gateway"
        folder.mkdir(parents=True, exist_ok=True)
        upstreams = {
            f"{service.name.upper()}_UPSTREAM": f"server {HOST}:{self.settings.ports[service.name]};"
            for service in SERVICES
        }
        listen = {"GATEWAY_LISTEN": f"{HOST}:{self.settings.ports['gateway']}", "RESOLVER": ""}
        rendered = subprocess.run(
            ["sh", str(ROOT / "gateway" / "render.sh"), str(folder)],
            env=os.environ | self.settings.environment | upstreams | listen,
            capture_output=True,
            text=True,
            check=False,
        )
        if rendered.returncode:
            raise StackError(f"gateway/render.sh failed: {rendered.stderr.strip()}")

    def migrate(self) -> None:
        """Bring the databases up to this version. Raises StackError with what the command says."""
        ran = subprocess.run(
            _python("services.migrate"),
            cwd=ROOT,
            env=os.environ | self.settings.environment | self._environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if ran.returncode:
            raise StackError(f"the databases could not be brought up to this version: {ran.stderr.strip()}")

    @property
    def _redis_url(self) -> str:
        return f"redis://{HOST}:{self.settings.ports['redis']}/0"

    def _environment(self) -> dict[str, str]:
        """What docs/internals.md lists, for every Python process of ours."""
        addresses = {f"{service.name.upper()}_URL": self.settings.url(service.name) for service in SERVICES}
        return addresses | {
            "MONGODB_URL": mongodb_url(self.settings.ports["mongodb"]),
            "REDIS_URL": self._redis_url,
            "S3_ENDPOINT_URL": self.settings.url("s3"),
            "S3_BUCKET": BUCKET,
            "S3_REGION": REGION,
            "AWS_ACCESS_KEY_ID": self.secrets.s3_access_key,
            "AWS_SECRET_ACCESS_KEY": self.secrets.s3_secret_key,
            "SERVICE_SECRET": self.secrets.service_secret,
            "WORKER_SECRET": self.secrets.worker_secret,
            "ADMIN_USERNAME": ADMIN_USERNAME,
            "ADMIN_PASSWORD": self.secrets.admin_password,
            "ADMIN_API_KEY": self.secrets.api_key,
        }


def _python(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", *arguments)
