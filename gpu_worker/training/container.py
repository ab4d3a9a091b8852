"""A training as a training job of Amazon SageMaker: `python -m gpu_worker train`.

SageMaker puts the inputs below /opt/ml/input/data, and keeps /opt/ml/checkpoints the same as a folder of the
bucket: what is there before the start is what an earlier job of this training has left.
https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-training-algo.html
"""

import json
import logging
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from gpu_worker.config import TrainConfig
from gpu_worker.errors import JobFault, RequestFault
from gpu_worker.files import StoredFile
from gpu_worker.jobs import ModelFile
from gpu_worker.logs import log_ids
from gpu_worker.training.transfer import sha256_of
from gpu_worker.training.work import Progress, Work

log = logging.getLogger(__name__)

TELL_SECONDS = 3.0
STATE = "last.state"
EXIT_FAILED = 1
LONGEST_FAILURE = 1000  # SageMaker shows 1024 characters


class Container:
    """`Outside` in folders; SIGTERM comes two minutes before the end: what is learned is kept then."""

    def __init__(self, root: Path, work: Work) -> None:
        self._data = root / "input" / "data" / "data"
        self._kept = root / "checkpoints"
        self._kept.mkdir(parents=True, exist_ok=True)
        self._work = work
        self._ending = threading.Event()
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._progress = Progress()
        self._record = self._earlier()
        self._thread = threading.Thread(target=self._tell_regularly, name="progress", daemon=True)

    def start(self) -> None:
        """Tell progress from now on; the outcome of an earlier job is none of this one's."""
        (self._kept / "outcome.json").unlink(missing_ok=True)
        self._thread.start()

    def close(self) -> None:
        """Tell the last progress."""
        self._closed.set()
        self._thread.join()
        self._tell()

    def end(self) -> None:
        """SageMaker stops the job."""
        self._ending.set()

    @property
    def stop_wanted(self) -> bool:
        """Whether SageMaker stops the job."""
        return self._ending.is_set()

    @property
    def must_save(self) -> bool:
        """The same: another job may have to go on from here."""
        return self._ending.is_set()

    def check(self) -> None:
        """A training job has no rival."""

    def note(self, **changes: Any) -> None:
        """Members of `Progress` that have changed."""
        with self._lock:
            self._progress = replace(self._progress, **changes)

    def note_loss(self, step: int, loss: float) -> None:
        """A point of the loss curve."""
        with self._lock:
            self._record["losses"].append((step, round(loss, 6)))

    @contextmanager
    def open(self, model: ModelFile) -> Iterator[StoredFile]:
        """The checkpoint that SageMaker brought. Raises RequestFault when it is another one by now."""
        path = self._path(model.url)
        if not path.is_file() or path.stat().st_size != model.size:
            raise RequestFault(f"the checkpoint {model.name} is no longer in storage as it was at the start")
        yield StoredFile(path, sha256_of(path))

    def fetch(self, name: str, url: str, most: int) -> bytes:
        """A picture that SageMaker brought."""
        path = self._path(url)
        if not path.is_file():
            raise RequestFault(f"{name} is no longer in storage")
        if path.stat().st_size > most:
            raise RequestFault(f"{name} has more than {most} bytes")
        return path.read_bytes()

    def fetch_state(self, path: Path) -> bool:
        """What an earlier job of this training has kept."""
        kept = self._kept / STATE
        if kept.is_file():
            shutil.copyfile(kept, path)
        return kept.is_file()

    def keep(self, path: Path, step: int) -> None:
        """Put the file where SageMaker takes it to the bucket; of states the last is enough."""
        if path.suffix == ".state":
            self._put(path, STATE)
            return
        self._put(path, path.name)
        with self._lock:
            listed = self._record["samples" if path.suffix == ".png" else "saves"]
            listed[:] = [one for one in listed if one["name"] != path.name]
            listed.append({"name": path.name, "step": step})

    def complete(self, path: Path | None, stopped: bool, facts: Mapping[str, Any]) -> None:
        """Put the result there, then say so."""
        if path is not None:
            self._put(path, path.name)
            self._outcome(status="complete", stopped=stopped, facts=dict(facts))

    def fail(self, kind: str, message: str) -> None:
        """Say why there is no result."""
        self._outcome(status="failed", kind=kind, message=message)

    def _path(self, key: str) -> Path:
        path = (self._data / key).resolve()
        if not path.is_relative_to(self._data.resolve()):
            raise RequestFault("an input has a name that leads elsewhere")
        return path

    def _put(self, path: Path, name: str) -> None:
        partial = self._kept / f".{name}.partial"
        shutil.copyfile(path, partial)
        partial.replace(self._kept / name)

    def _write(self, name: str, document: Mapping[str, Any]) -> None:
        partial = self._kept / f".{name}.partial"
        partial.write_text(json.dumps(document), encoding="utf-8")
        partial.replace(self._kept / name)

    def _outcome(self, **document: Any) -> None:
        self._write("outcome.json", {"attempt": self._work.attempt} | document)

    def _earlier(self) -> dict[str, Any]:
        """What earlier jobs have told and this one goes on with."""
        record: dict[str, Any] = {"losses": [], "samples": [], "saves": []}
        try:
            told = json.loads((self._kept / "progress.json").read_text(encoding="utf-8"))
            return {name: list(told[name]) for name in record}
        except (OSError, ValueError, KeyError, TypeError):
            return record

    def _tell_regularly(self) -> None:
        while not self._closed.wait(TELL_SECONDS):
            self._tell()

    def _tell(self) -> None:
        with self._lock:
            progress = asdict(self._progress)
            document = {
                "attempt": self._work.attempt,
                "unknown_parameters": list(progress.pop("unknown_parameters") or ()),
                "notes": list(progress.pop("notes") or ()),
                "progress": progress,
                **{name: list(found) for name, found in self._record.items()},
            }
        self._write("progress.json", document)


def run(config: TrainConfig) -> int:
    """Does the training that the channel `work` describes; 0 when there is a result."""
    document = json.loads((config.root / "input/data/work/work.json").read_text(encoding="utf-8"))
    work = Work.from_json(document)
    container = Container(config.root, work)
    signal.signal(signal.SIGTERM, lambda _number, _frame: container.end())
    container.start()
    with log_ids(job_id=work.id, request_id=work.request_id):
        try:
            _train(config, work, container)
        except JobFault as fault:
            return _failed(config, container, fault.kind, str(fault))
        except Exception as error:
            log.exception("work failed unexpectedly")
            message = f"the training job met an unexpected {type(error).__name__}"
            return _failed(config, container, "passing", message)
        finally:
            container.close()
    return 0


def _train(config: TrainConfig, work: Work, container: Container) -> None:
    # Importing torch and diffusers takes seconds, in which the start is told already.
    from gpu_worker.device import choose_device
    from gpu_worker.training.process import memory_and_device_faults
    from gpu_worker.training.session import Session

    with memory_and_device_faults():
        Session(container, work, choose_device(), config.state_seconds).run()


def _failed(config: TrainConfig, container: Container, kind: str, message: str) -> int:
    log.error("work failed", extra={"kind": kind, "reason": message})
    container.fail(kind, message)
    output = config.root / "output"
    output.mkdir(parents=True, exist_ok=True)
    (output / "failure").write_text(message[:LONGEST_FAILURE], encoding="utf-8")
    return EXIT_FAILED
