"""POST /auth/token and /auth/revoke."""

from typing import Any

from flask import Response

from services.common.audit import client_address, concerning
from services.common.envelope import answer
from services.common.identity import requires_identity, requires_key
from services.common.web import ServiceBlueprint
from services.users import schemas
from services.users.parts import parts

blp = ServiceBlueprint("tokens", __name__, description="Signing in and out")


@blp.route("/auth/token", methods=["POST"])
@blp.arguments(schemas.TokenRequest)
@blp.response(200, schemas.IssuedEnvelope)
@requires_key
def sign_in(wanted: dict[str, str]) -> Response:
    """Tokens for a user name and password, or for a refresh token."""
    issued = _refreshed(wanted["refresh_token"]) if "refresh_token" in wanted else _signed_in(**wanted)
    # Both in `data`, as every answer here, and beside it, where OAuth clients look.
    response = answer(200, "OK", issued, **issued)
    response.headers["Cache-Control"] = "no-store"
    return response


def _signed_in(username: str, password: str) -> dict[str, Any]:
    concerning([username[: schemas.LONGEST_NAME]], actor=username[: schemas.LONGEST_NAME])
    return parts().sessions.sign_in(username, password, client_address())


def _refreshed(token: str) -> dict[str, Any]:
    issued, username = parts().sessions.refresh(token)
    concerning([username], actor=username)
    return issued


@blp.route("/auth/revoke", methods=["POST"])
@blp.arguments(schemas.Refresh)
@blp.answers(200, message="revoked")
@requires_identity
def revoke(wanted: dict[str, str]) -> None:
    """End the session of a refresh token; an unknown token is as good as ended."""
    parts().sessions.end(wanted["refresh_token"])
