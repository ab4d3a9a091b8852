"""A small HTTP server that stands for the other sdfleet services while one of them is tested alone."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from flask import Flask, Response, jsonify, request
from werkzeug.serving import make_server

Answer = Callable[[dict[str, Any]], dict[str, Any] | None]


@dataclass
class Neighbours:
    """What the other services answer; tests change it as they go."""

    url: str = ""
    answers: dict[str, Answer] = field(default_factory=dict)
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)


@contextmanager
def neighbours() -> Iterator[Neighbours]:
    """Run the server on a free port of the loopback address."""
    running = Neighbours()
    app = Flask("neighbours")

    @app.post("/internal/<path:name>")
    def internal(name: str) -> Response | tuple[str, int]:
        body = request.get_json()
        if name == "audit":  # sent whenever something changes, and of no interest here
            return "", 204
        running.calls.append((name, body))
        if name not in running.answers:
            return "", 503
        answer = running.answers[name](body)
        return ("", 204) if answer is None else jsonify(answer)

    server = make_server("127.0.0.1", 0, app, threaded=True)
    running.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield running
    finally:
        server.shutdown()
        thread.join()
