"""Brings the files of jobs that wait to this machine's disk while others are computed."""

import logging
import threading
from collections.abc import Callable, Sequence

from gpu_worker.client import ServiceClient
from gpu_worker.errors import JobFault, ServiceRefused, ServiceUnreachable
from gpu_worker.files import FileCache

log = logging.getLogger(__name__)

POLL_SECONDS = 0.2


class _NoLonger(Exception):
    """What a download is stopped by."""


class Prefetch:
    """A thread that looks ahead whenever `look` is called.

    `may_fetch` says whether the jobs in hand have their own files, which come first. What goes wrong here is
    left to the job that needs the file: it meets the same and says so.
    """

    def __init__(
        self,
        client: ServiceClient,
        files: FileCache,
        endpoints: Callable[[], Sequence[str]],
        may_fetch: Callable[[], bool],
    ) -> None:
        self._client = client
        self._files = files
        self._endpoints = endpoints
        self._may_fetch = may_fetch
        self._wanted = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prefetch", daemon=True)

    def start(self) -> None:
        """Begins to wait for `look`."""
        self._thread.start()

    def look(self) -> None:
        """Something may wait that needs files; returns at once."""
        self._wanted.set()

    def stop(self) -> None:
        """Ends a download that is under way; what has come stays for another try."""
        self._stopping.set()
        self._wanted.set()

    def _run(self) -> None:
        while True:
            self._wanted.wait()
            self._wanted.clear()
            try:
                self._fetch()
            except _NoLonger:
                return
            except (ServiceUnreachable, ServiceRefused) as error:
                log.info("what comes next is not known", extra={"reason": str(error)})
            except Exception:
                log.exception("files could not be fetched ahead")

    def _fetch(self) -> None:
        while not self._may_fetch():
            self._check()
            self._stopping.wait(POLL_SECONDS)
        self._check()
        for file in self._client.upcoming(self._endpoints()):
            try:
                with self._files.open(file, self._check):
                    log.debug("a file is here ahead of its job", extra={"checkpoint": file.id})
            except JobFault as fault:  # of one file, not of those behind it
                log.info("a file was not fetched ahead", extra={"checkpoint": file.id, "reason": str(fault)})

    def _check(self) -> None:
        if self._stopping.is_set():
            raise _NoLonger
