"""Fetches a job's parameter file."""

import logging
import time

import requests

from gpu_worker import limits
from gpu_worker.errors import Passing, RequestFault

log = logging.getLogger(__name__)

TIMEOUT = (3.05, 30.0)
ATTEMPTS = 3
PAUSE_SECONDS = 0.5


def read_parameters(session: requests.Session, url: str) -> bytes:
    """The parameter file, read no further than its limit; raises `RequestFault` or `Passing`."""
    for attempt in range(ATTEMPTS):
        try:
            with session.get(url, stream=True, timeout=TIMEOUT) as response:
                if response.status_code == 404:
                    raise RequestFault(
                        "the parameters of the job are not in storage: upload them before the start"
                    )
                if response.ok:
                    return _read_bounded(response)
                log.warning("parameters not given", extra={"status": response.status_code})
        except requests.RequestException as error:
            log.warning("parameters not read", extra={"reason": type(error).__name__})
        time.sleep(PAUSE_SECONDS * attempt)
    raise Passing("the parameters of the job could not be read from storage")


def _read_bounded(response: requests.Response) -> bytes:
    content = response.raw.read(limits.MAX_PARAMETER_BYTES + 1, decode_content=True)
    if len(content) > limits.MAX_PARAMETER_BYTES:
        raise RequestFault(
            f"the parameters must have at most {limits.MAX_PARAMETER_BYTES} bytes, they have more"
        )
    return bytes(content)
