"""The description of the whole API, put together from what each service says of itself."""

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import requests

log = logging.getLogger(__name__)

KEPT_SECONDS = 60.0
KEPT_SECONDS_IN_PART = 3.0
PATIENCE_SECONDS = 2.0
KEY_ONLY = frozenset({"/ping", "/auth/token"})
OPEN = frozenset({"/.well-known/jwks.json"})
UNLISTED = ("/internal", "/healthz", "/readyz", "/docs", "/openapi.json")
COMPONENTS = ("schemas", "responses", "parameters")
FAILURE = {
    "type": "object",
    "properties": {
        "statusCode": {"type": "integer"},
        "message": {"type": "string"},
        "errors": {"type": "object", "description": "each field's problems"},
    },
    "required": ["statusCode", "message"],
}
SECURITY_SCHEMES = {
    "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    "identity": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
}

Document = dict[str, Any]


class WholeApi:
    """Asks the other services for their documents, and remembers the whole for a while."""

    def __init__(self, others: Mapping[str, str]) -> None:
        self._others = {name: url.rstrip("/") for name, url in others.items() if url}
        self._document: Document = {}
        self._good_until = float("-inf")
        self._lock = threading.Lock()

    def document(self, own: Callable[[], Document]) -> Document:
        """The document; a service that does not answer now is left out of it.

        Anybody may ask: while one asks the services, the others get the last document and wait for nothing.
        """
        if not self._lock.acquire(blocking=not self._document):
            return self._document
        try:
            if time.monotonic() > self._good_until:
                found = {"users": own()} | self._of_others()
                whole = len(found) > len(self._others)
                self._document = assemble(found)
                self._good_until = time.monotonic() + (KEPT_SECONDS if whole else KEPT_SECONDS_IN_PART)
            return self._document
        finally:
            self._lock.release()

    def _of_others(self) -> dict[str, Document]:
        found = {}
        for name, url in self._others.items():
            try:
                answer = requests.get(f"{url}/internal/openapi.json", timeout=PATIENCE_SECONDS)
                answer.raise_for_status()
                found[name] = answer.json()
            except (requests.RequestException, ValueError) as failure:
                log.warning("no document", extra={"of": name, "failure": type(failure).__name__})
        return found


def assemble(documents: Mapping[str, Document]) -> Document:
    """One OpenAPI 3.0 document of several; what each calls its components is told apart by its name."""
    paths: Document = {}
    components: Document = {kind: {} for kind in COMPONENTS}
    for service, document in documents.items():
        document = _with_own_names(service, document)
        for path, item in document.get("paths", {}).items():
            if not path.startswith(UNLISTED):
                paths[path] = paths.get(path, {}) | _secured(path, item)
        for kind in COMPONENTS:
            for name, component in document.get("components", {}).get(kind, {}).items():
                components[kind][f"{service}.{name}"] = FAILURE if name == "Error" else component
    return {
        "openapi": "3.0.3",
        "info": {"title": "sdfleet", "version": "1.4.0"},
        "servers": [{"url": "/"}],
        "security": [{"key": [], "identity": []}],
        "paths": dict(sorted(paths.items())),
        "components": components | {"securitySchemes": SECURITY_SCHEMES},
    }


def _with_own_names(service: str, document: Document) -> Document:
    text = json.dumps(document)
    for kind in COMPONENTS:
        text = text.replace(f'"#/components/{kind}/', f'"#/components/{kind}/{service}.')
    # Python's end of a text, which suffers no line break before it, is the $ of JavaScript.
    renamed: Document = json.loads(text.replace('\\\\Z"', '$"'))
    return renamed


def _secured(path: str, item: Document) -> Document:
    if path not in OPEN | KEY_ONLY:
        return item
    security: list[Document] = [{"key": []}] if path in KEY_ONLY else []
    return {
        method: operation | {"security": security} if isinstance(operation, dict) else operation
        for method, operation in item.items()
    }
