"""The answer to a Real-time start: written once the job is over, by the thread that serves streams of events.

No request's thread waits for it. A few such jobs at once would otherwise hold every thread of a process, and
with them the claims of the very workers that are waited for.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from typing import Any

from flask import Response

from services.common.worker import HandedOver, take_socket
from services.inference.records import Job
from services.inference.states import Status
from services.inference.streams import Stream, Streams

log = logging.getLogger(__name__)

Render = Callable[[], Response]


class Answer(Stream):
    """A client that hears nothing until the job is over, or its time is: then one whole answer."""

    def __init__(self, job_id: str, user: str, ends_at: float, render: Render, seconds: float) -> None:
        super().__init__(job_id, user, ends_at)
        self._render = render
        self._seconds = seconds
        self._is_answered = False

    def begin(self, transport: asyncio.Transport, chunked: bool) -> None:
        super().begin(transport, chunked)
        asyncio.get_running_loop().call_later(self._seconds, self.finish)

    def tell(self, standing: dict[str, Any], position: int | None = None) -> None:
        """Answer when the job is over."""
        if self._transport is None:
            self.missed = True
        elif Status(standing["status"]).is_final:
            self.finish()

    def write(self, text: bytes) -> None:
        """Events and heartbeats are for those who listen to events."""

    def finish(self) -> None:
        """Answer now; the records are read elsewhere than in the thread of all streams."""
        if self._is_answered or self._transport is None or self._transport.is_closing():
            return
        self._is_answered = True
        rendered = asyncio.get_running_loop().run_in_executor(None, self._bytes)
        rendered.add_done_callback(self._send)

    def _bytes(self) -> bytes:
        return raw(self._render())

    def _send(self, rendered: "asyncio.Future[bytes]") -> None:
        assert self._transport is not None
        if rendered.exception() is not None:
            log.error("an answer could not be made", exc_info=rendered.exception())
            self._transport.abort()
            return
        self._transport.write(rendered.result())
        self._transport.close()


def raw(response: Response) -> bytes:
    """The bytes of a response, after which the connection ends."""
    status = HTTPStatus(response.status_code)
    response.headers["Connection"] = "close"
    response.headers["Content-Length"] = str(len(response.get_data()))
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        *(f"{name}: {text}" for name, text in response.headers),
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + response.get_data()


class Awaiting:
    """The body of the request's own answer: it hands the connection over before anything is written."""

    def __init__(self, streams: Streams, answer: Stream, job: Job, environ: Mapping[str, Any]) -> None:
        self._streams = streams
        self._answer = answer
        self._job = job
        self._environ = environ
        self._given = False

    def __iter__(self) -> Iterator[bytes]:
        client = take_socket(self._environ)
        if client is not None:
            self._given = True
            self._streams.hand_over(self._answer, client, False, self._job, None)
            raise HandedOver
        yield b""

    def close(self) -> None:
        """The request is over."""
        if not self._given:
            self._streams.close(self._answer)
