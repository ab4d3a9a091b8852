"""The API's description, for programs and for people."""

from pathlib import Path
from typing import Any

from flask import Response, current_app

from services.common.identity import open_to_all
from services.common.web import ServiceBlueprint
from services.users.parts import parts

blp = ServiceBlueprint("docs", __name__)

PAGE = Path(__file__).with_name("docs_page.html")
# The page loads nothing from anywhere else.
POLICY = "default-src 'none'; connect-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


@blp.route("/openapi.json")
@open_to_all
def openapi() -> dict[str, Any]:
    """The OpenAPI document of all services."""
    return parts().whole_api.document(_own)


def _own() -> dict[str, Any]:
    view: Any = current_app.view_functions["api-docs.openapi_json"]
    own: dict[str, Any] = view().get_json()
    return own


@blp.route("/docs")
@open_to_all
def docs() -> Response:
    """The document as a page."""
    headers = {"Content-Security-Policy": POLICY}
    return Response(PAGE.read_text(encoding="utf-8"), mimetype="text/html", headers=headers)
