"""The process of one piece of long work: `python -m gpu_worker long-work`, told of it on standard input."""

import ctypes
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from gpu_worker.client import make_session
from gpu_worker.config import WorkerConfig
from gpu_worker.errors import (
    AttemptLost,
    Dropped,
    JobFault,
    MachineFault,
    Released,
    RequestFault,
    ServiceRefused,
    ServiceUnreachable,
)
from gpu_worker.files import FileCache
from gpu_worker.logs import log_ids
from gpu_worker.training.lease import WorkLease
from gpu_worker.training.outside import Attempt
from gpu_worker.training.transfer import Transfer
from gpu_worker.training.work import Work, WorkClient

log = logging.getLogger(__name__)

MERGE = "merge"
EXIT_NOT_REPORTED = 4
PR_SET_PDEATHSIG = 1


def run(config: WorkerConfig) -> int:
    """Does the work that standard input describes; 0 when its end was reported, whatever it was."""
    _die_with_parent()
    work = Work.from_json(json.load(sys.stdin))
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: stopping.set())
    signal.signal(signal.SIGINT, _ignore)
    client = WorkClient(config)
    lease = WorkLease(client, work, stopping.is_set)
    with log_ids(job_id=work.id, request_id=work.request_id):
        try:
            _do(config, client, work, lease)
        except Dropped as reason:
            return _dropped(client, work, reason)
        except JobFault as fault:
            return _failed(client, work, lease, fault.kind, str(fault))
        except (ServiceUnreachable, ServiceRefused) as error:
            log.error("the work could not be completed", extra={"reason": str(error)})
            return EXIT_NOT_REPORTED
        except Exception as error:
            log.exception("work failed unexpectedly")
            return _failed(
                client, work, lease, "passing", f"the worker met an unexpected {type(error).__name__}"
            )
        finally:
            lease.close()
    return 0


def _do(config: WorkerConfig, client: WorkClient, work: Work, lease: WorkLease) -> None:
    session = make_session()
    files = FileCache(config.cache_dir, config.disk_cache_bytes, session)
    transfer = Transfer(client, session, work, lease)
    if work.kind == MERGE:
        from gpu_worker.training.merge import merge

        merge(client, work, lease, transfer, files)
        return
    # Importing torch and diffusers takes seconds, in which the lease is held already.
    from gpu_worker.device import choose_device
    from gpu_worker.training.session import Session

    outside = Attempt(client, work, lease, transfer, files)
    with memory_and_device_faults():
        Session(outside, work, choose_device(), config.state_seconds).run()


@contextmanager
def memory_and_device_faults() -> Iterator[None]:
    """Turns what torch raises for want of memory, or of a GPU, into a sentence."""
    from gpu_worker.device import is_lost_device, is_out_of_memory

    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise RequestFault(
                "the training does not fit into this worker's memory: try gradient_checkpointing, a smaller "
                "batch or resolution, mixed_precision"
            ) from error
        if is_lost_device(error):
            raise MachineFault("the GPU failed during the training") from error
        raise


def _dropped(client: WorkClient, work: Work, reason: Dropped) -> int:
    log.info("work dropped", extra={"reason": type(reason).__name__})
    if isinstance(reason, Released):
        try:
            client.release_work(work)
        except (AttemptLost, ServiceUnreachable, ServiceRefused) as error:
            log.warning("work not given back", extra={"reason": str(error)})
    return 0


def _failed(client: WorkClient, work: Work, lease: WorkLease, kind: str, message: str) -> int:
    log.warning("work failed", extra={"kind": kind, "reason": message})
    try:
        lease.persist(lambda: client.fail_work(work, kind, message))
    except Dropped:
        return 0
    except (ServiceUnreachable, ServiceRefused):
        return EXIT_NOT_REPORTED
    return 0


def _die_with_parent() -> None:
    """Linux ends this process with its worker, so that two never compute the same."""
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(EXIT_NOT_REPORTED)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """The terminal's Ctrl-C goes to the worker, which tells us."""
