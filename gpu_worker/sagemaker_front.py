"""What SageMaker asks of a container: GET /ping and POST /invocations."""

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from gpu_worker.engine_thread import EngineThread, State
from gpu_worker.errors import JobFault, MachineFault
from gpu_worker.invocation import MAX_BODY_BYTES, read_invocation

log = logging.getLogger(__name__)

STATUS_OF: Mapping[str, int] = {"request": 400, "passing": 503, "machine": 500}


def create_app(engine: EngineThread, end_process: Callable[[], None]) -> Flask:
    """The front of `engine`; `end_process` is called once the machine's failure was answered."""
    app = Flask("gpu_worker")
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES

    @app.get("/ping")
    def ping() -> Response:
        """200 when jobs are taken, 503 while the engine loads and after the machine failed."""
        return _json(200 if engine.state is State.READY else 503, {"state": engine.state})

    @app.post("/invocations")
    def invocations() -> Response:
        """Run one job."""
        return _json(200, engine.run(read_invocation(request.get_data())))

    @app.errorhandler(JobFault)
    def fault(error: JobFault) -> Response:
        response = _json(STATUS_OF[error.kind], {"kind": error.kind, "message": str(error)})
        if isinstance(error, MachineFault):
            response.call_on_close(end_process)
        return response

    @app.errorhandler(HTTPException)
    def refused(error: HTTPException) -> Response:
        message = error.description or error.name
        if isinstance(error, RequestEntityTooLarge):
            message = f"the invocation must have at most {MAX_BODY_BYTES} bytes, it has more"
        return _json(error.code or 500, {"kind": "request", "message": message})

    return app


def _json(status: int, document: Mapping[str, Any]) -> Response:
    return Response(json.dumps(document, allow_nan=False), status, mimetype="application/json")
