"""Service routes that belong to no resource."""

from services.common.identity import open_to_all, requires_key
from services.common.web import ServiceBlueprint
from services.users.parts import parts

blp = ServiceBlueprint("service", __name__, description="Is it there, and whose signature is this?")


@blp.route("/ping")
@blp.answers(200, message="pong")
@requires_key
def ping() -> None:
    """Answer to whoever has an API key."""


@blp.route("/.well-known/jwks.json")
@blp.response(200)
@open_to_all
def jwks() -> dict[str, list[dict[str, str]]]:
    """The public keys that sign tokens (RFC 7517)."""
    return {"keys": parts().ring.published()}
