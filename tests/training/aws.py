"""SageMaker's training jobs for tests: moto in server mode, and before it what moto leaves out.

moto's jobs are Completed at once, it lets a name be used twice, and it stops none. `Front` adds these in the
words of SageMaker's API reference; `run_container` does what SageMaker does around the container.
"""

import io
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moto.core import DEFAULT_ACCOUNT_ID
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.sagemaker.models import sagemaker_backends
from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

from services.common.s3 import ObjectStore

REGION = "us-east-1"
ROLE = f"arn:aws:iam::{DEFAULT_ACCOUNT_ID}:role/sdfleet"
IMAGE = f"{DEFAULT_ACCOUNT_ID}.dkr.ecr.{REGION}.amazonaws.com/sdfleet-worker:1.0"


@dataclass
class Aws:
    """The running server; tests change what it does as they go."""

    url: str = ""
    calls: Counter[str] = field(default_factory=Counter)
    refusals: dict[str, tuple[str, str]] = field(default_factory=dict)  # action: (code, message)

    def reset(self) -> None:
        """There are no jobs, and nothing is refused."""
        sagemaker_backends.reset()
        self.calls.clear()
        self.refusals.clear()

    @property
    def jobs(self) -> dict[str, Any]:
        """moto's training jobs by name."""
        found: dict[str, Any] = sagemaker_backends[DEFAULT_ACCOUNT_ID][REGION].training_jobs
        return found

    def end(self, name: str, status: str, reason: str | None = None) -> None:
        """What becomes of a job."""
        self.jobs[name].training_job_status = status
        self.jobs[name].failure_reason = reason


class Front:
    """The application before moto."""

    def __init__(self, aws: Aws) -> None:
        self._aws = aws
        self._moto: Callable[..., Iterable[bytes]] = DomainDispatcherApplication(create_backend_app)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        request = Request(environ)
        action = request.headers.get("X-Amz-Target", "").rpartition(".")[2]
        body = request.get_data(parse_form_data=False)
        environ["wsgi.input"] = io.BytesIO(body)
        self._aws.calls[action] += 1
        name = json.loads(body or b"{}").get("TrainingJobName", "")
        answer = self._own(action, name)
        if answer is not None:
            return answer(environ, start_response)
        moto = self._moto(environ, start_response)
        if action == "CreateTrainingJob":
            self._aws.jobs[name].training_job_status = "InProgress"
        return moto

    def _own(self, action: str, name: str) -> Response | None:
        if action in self._aws.refusals:
            return _refusal(*self._aws.refusals[action])
        job = self._aws.jobs.get(name)
        if action == "CreateTrainingJob" and job is not None:
            return _refusal("ResourceInUse", "Training job names must be unique within an AWS account")
        if action == "StopTrainingJob":
            if job is None or job.training_job_status != "InProgress":
                return _refusal("ValidationException", "The request was rejected: it is not InProgress.")
            job.training_job_status = "Stopping"
            return Response("{}", 200, content_type="application/x-amz-json-1.1")
        return None


def _refusal(code: str, message: str) -> Response:
    text = json.dumps({"__type": code, "message": message})
    return Response(text, 400, content_type="application/x-amz-json-1.1")


@contextmanager
def running_aws() -> Iterator[Aws]:
    """Run it on a free port of the loopback address."""
    aws = Aws()
    server = make_server("127.0.0.1", 0, Front(aws), threaded=True)
    aws.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield aws
    finally:
        server.shutdown()
        thread.join()


@dataclass
class Container:
    """A training job's container, and the folders that SageMaker gives it."""

    process: "subprocess.Popen[bytes]"
    root: Path
    upload: Callable[[], None]

    def wait(self) -> int:
        """Its exit status, once what it made is in the bucket."""
        status = self.process.wait(300)
        self.upload()
        return status


def run_container(job: Any, objects: ObjectStore, root: Path) -> Container:
    """Fetch the channels and the checkpoints, start the worker's entry `train`, and watch its folder."""
    for channel in job.input_data_config:
        source = channel["DataSource"]["S3DataSource"]
        folder = root / "input" / "data" / channel["ChannelName"]
        for key, name in _objects_of(source, objects):
            _download(objects, key, folder / name)
    prefix = _key(job.checkpoint_config["S3Uri"], objects) + "/"
    kept = root / "checkpoints"
    for key in objects.keys_under(prefix):
        _download(objects, key, kept / key.removeprefix(prefix))
    environment = {"PATH": os.defpath, "SAGEMAKER_TRAINING_ROOT": str(root), "OMP_NUM_THREADS": "1"}
    environment |= {"WORKER_CACHE_DIR": str(root / "cache"), "TRAINING_STATE_SECONDS": "1"}
    process = subprocess.Popen([sys.executable, "-m", "gpu_worker", "train"], env=environment)

    def upload() -> None:
        for path in kept.iterdir():
            if not path.name.endswith(".partial"):
                objects.write(prefix + path.name, path.read_bytes())

    return Container(process, root, upload)


def _objects_of(source: dict[str, str], objects: ObjectStore) -> list[tuple[str, str]]:
    """(key, path in the channel's folder) of what SageMaker fetches."""
    key = _key(source["S3Uri"], objects)
    if source["S3DataType"] == "S3Prefix":
        return [(one, one.removeprefix(key)) for one in objects.keys_under(key)]
    first, *names = json.loads(objects.read(key, 10**7) or b"[]")
    assert first == {"prefix": f"s3://{objects.bucket}/"}
    return [(name, name) for name in names]


def _download(objects: ObjectStore, key: str, path: Path) -> None:
    content = objects.read(key, 10**9)
    assert content is not None, key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _key(location: str, objects: ObjectStore) -> str:
    begin = f"s3://{objects.bucket}/"
    assert location.startswith(begin)
    return location.removeprefix(begin)
