"""The beginning of a stream of events, in a request's thread, which it then leaves."""

from collections.abc import Iterator, Mapping
from typing import Any

from services.common.worker import HandedOver, take_socket
from services.inference.event_text import RECONNECT, Told, end, news
from services.inference.records import Job
from services.inference.states import Status
from services.inference.streams import Stream, Streams


class Following:
    """The body of the answer: a first line, and the hand-over of the rest."""

    def __init__(
        self, streams: Streams, stream: Stream, job: Job, position: int | None, environ: Mapping[str, Any]
    ) -> None:
        self._streams = streams
        self._stream = stream
        self._job = job
        self._position = position
        self._environ = environ
        self._given = False

    def __iter__(self) -> Iterator[bytes]:
        yield RECONNECT
        client = take_socket(self._environ)
        if client is None:  # another server than ours: how the job stands, and the client comes back
            yield as_it_stands(self._job, self._position)
            return
        self._given = True
        chunked = self._environ["SERVER_PROTOCOL"] == "HTTP/1.1"  # then gunicorn has begun in chunks
        self._streams.hand_over(self._stream, client, chunked, self._job, self._position)
        raise HandedOver

    def close(self) -> None:
        """The request is over."""
        if not self._given:
            self._streams.close(self._stream)


def as_it_stands(job: Job, position: int | None) -> bytes:
    """The events of a job that nobody goes on with."""
    return end(job) if Status(job["status"]).is_final else news(Told(), job, position)
