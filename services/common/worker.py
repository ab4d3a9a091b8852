"""gunicorn's threaded worker: a shorter way for requests that are answered at once, a way out for those whose
answer goes on for long, and an end that loses no request.
"""

import contextlib
import errno
import socket
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from gunicorn.workers.gthread import TConn, ThreadWorker

EXTENSION = "sdfleet-answer-at-once"
LONGEST_REQUEST = 65536

# Takes a whole request as it came; gives the whole answer, or None when the usual way is to be gone.
AnswerAtOnce = Callable[[bytes], bytes | None]


_taken: "weakref.WeakSet[socket.socket]" = weakref.WeakSet()


class HandedOver(OSError):
    """Raised by a response's iterable: somebody else writes the rest, no thread waits for it."""

    def __init__(self) -> None:
        super().__init__(errno.EPIPE, "the socket was taken")  # which gunicorn passes over in silence


def can_take_socket(environ: Mapping[str, Any]) -> bool:
    """Whether the server of this request lets go of connections."""
    return environ.get("gunicorn.socket") is not None


def take_socket(environ: Mapping[str, Any]) -> socket.socket | None:
    """A socket of one's own to the client of a request, None under another server.

    The iterable that takes it must then raise HandedOver.
    """
    served: socket.socket | None = environ.get("gunicorn.socket")
    if served is None:
        return None
    _taken.add(served)
    return served.dup()


class Worker(ThreadWorker):
    """Where the application has an AnswerAtOnce, asks it first for requests on kept connections; leaves
    connections alone that were taken.

    Handing a request to a thread and back costs several times what a lookup in memory does.
    """

    def finish_request(self, conn: TConn, fs: "Future[Any]") -> None:
        """The thread is done with a request."""
        if conn.sock in _taken:
            self.nr_conns -= 1
            conn.sock.close()  # no shutdown, which would end the connection for its new owner as well
            return
        super().finish_request(conn, fs)

    def set_accept_enabled(self, enabled: bool) -> None:
        """Stop listening for good once the worker is to end.

        gunicorn leaves the socket open until it has ended: connections of its last seconds would be made, and
        never answered. Refused ones a gateway takes elsewhere.
        """
        super().set_accept_enabled(enabled)
        if self.alive or enabled:
            return
        for listener in self.sockets:
            self._accept_waiting(listener)
            listener.close()

    def _accept_waiting(self, listener: Any) -> None:
        """Take the connections that the kernel has made already."""
        before = -1
        while before != self.nr_conns:
            before = self.nr_conns
            self.accept(listener)

    def init_process(self) -> None:
        self._answer_at_once: AnswerAtOnce | None = None
        super().init_process()

    def load_wsgi(self) -> None:
        super().load_wsgi()
        self._answer_at_once = getattr(self.wsgi, "extensions", {}).get(EXTENSION)

    def on_client_socket_readable(self, conn: TConn, client: socket.socket) -> Any:
        """A request on a kept connection; nothing of it has been read."""
        if self.alive and self._answer_at_once and self._answered(client):
            self.keepalived_conns.remove(conn)  # kept in the order of their ends
            conn.set_timeout()
            self.keepalived_conns.append(conn)
            return
        super().on_client_socket_readable(conn, client)

    def _answered(self, client: socket.socket) -> bool:
        assert self._answer_at_once is not None
        try:
            request = client.recv(LONGEST_REQUEST, socket.MSG_PEEK)
        except OSError:
            return False
        answer = self._answer_at_once(request) if request else None
        if answer is None:
            return False
        try:
            client.recv(len(request))
            whole = client.send(answer) == len(answer)
        except OSError:
            whole = False
        if not whole:  # the peer does not read: the poller hears of the end, and closes the connection
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        return True
