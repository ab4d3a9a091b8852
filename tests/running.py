"""A whole running stack, and clients of it, for the tests that go through the gateway."""

import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from stack.demo import journey
from stack.demo.client import Client, Target
from stack.settings import ROOT, Settings
from stack.stack import Stack

CHECKPOINT = ROOT / "house" / "shapes-v1.safetensors"
PROMPT = "a red circle on a white background"
PARAMETERS = {"prompt": PROMPT, "steps": 20, "width": 64, "height": 64, "seed": 7, "sampler_name": "Euler"}


@dataclass(frozen=True)
class Running:
    """A running stack with an artist who has the house checkpoint and an endpoint in service."""

    stack: Stack
    target: Target
    artist: Client
    endpoint: str

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> requests.Response:
        """A call with just these headers; a body that is text goes as it is."""
        data = body if isinstance(body, str | bytes) else json.dumps(body) if body is not None else None
        return requests.request(method, self.target.url + path, data=data, headers=headers, timeout=60)

    def signed_in(self) -> dict[str, str]:
        """The artist's headers."""
        return {name: str(value) for name, value in self.artist._session.headers.items()}

    def start(self, parameters: dict[str, Any], model: str = CHECKPOINT.name) -> str:
        """The id of a started job."""
        return journey.start_job(self.artist, self.endpoint, model, parameters)

    def job(self, job_id: str) -> dict[str, Any]:
        """A job as its owner sees it."""
        return dict(self.artist.call("GET", f"/inferences/{job_id}"))


@contextmanager
def running_stack(folder: Path, workers: int = 1, **environment: str) -> Iterator[Running]:
    """Start a stack on free ports, and prepare it as the demonstration does."""
    with Stack(folder, Settings.on_free_ports(workers, **environment)) as stack:
        creds = stack.creds()
        target = Target(creds.url, creds.api_key, creds.username, creds.password)
        artist, endpoint = journey.prepare(target, CHECKPOINT)
        yield Running(stack, target, artist, endpoint)


def safetensors_file(tensors: dict[str, Any], size: int) -> bytes:
    """A safetensors file with this header and so many bytes of zeros."""
    header = json.dumps(tensors).encode()
    return struct.pack("<Q", len(header)) + header + bytes(size)
