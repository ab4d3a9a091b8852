"""Who calls: internal tokens made by users, services and GPU workers, and what routes ask of them."""

import functools
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import jwt
from flask import Flask, g, request
from jwt.types import Options

from services.common.errors import Forbidden, Unauthorized, Unavailable

HEADER = "X-Internal-Token"
ISSUER = "sdfleet"
USER_AUDIENCE = "sdfleet-internal"
SERVICE_AUDIENCE = "sdfleet-service"
WORKER_AUDIENCE = "sdfleet-worker"
TOKEN_SECONDS = 60
VERIFIED_SECONDS = 2  # how long a good signature is remembered: its key may have been stolen and given up

RESOURCES = ("train", "checkpoint", "inference", "sagemaker_endpoint", "user", "role")
ACTIONS = ("all", "list", "create", "update", "delete")
PERMISSIONS = tuple(f"{resource}:{action}" for resource in RESOURCES for action in ACTIONS)

View = TypeVar("View", bound=Callable[..., Any])


@dataclass(frozen=True)
class Caller:
    """An authenticated caller: a user behind an API key, a service, or a GPU worker."""

    audience: str
    username: str | None
    roles: tuple[str, ...] = ()
    permissions: frozenset[str] = frozenset()
    key_id: str | None = None
    key_scopes: tuple[str, ...] = ()
    claims: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def name(self) -> str:
        """The user's name; only for routes that ask for an identity."""
        if self.username is None:
            raise Unauthorized
        return self.username

    def may(self, permission: str) -> bool:
        """Whether the caller holds `resource:action`; `resource:all` grants every action."""
        resource = permission.split(":", 1)[0]
        return permission in self.permissions or f"{resource}:all" in self.permissions


class KeySource(Protocol):
    """Gives the public key that a token names by its `kid`: PyJWKClient, or keys at hand."""

    def get_signing_key_from_jwt(self, token: str) -> Any: ...


class Authentication:
    """Verifies internal tokens of the three audiences."""

    def __init__(self, users_keys: KeySource, service_secret: str, worker_secret: str | None = None) -> None:
        self._users_keys = users_keys
        self._secrets = {SERVICE_AUDIENCE: service_secret, WORKER_AUDIENCE: worker_secret}
        self._verified = functools.lru_cache(maxsize=2048)(self._verify_signature)

    def caller_of(self, token: str | None, audience: str) -> Caller:
        """The caller that `token` proves. Raises Unauthorized when it does not,
        Unavailable when the keys to check it cannot be had."""
        if not token:
            raise Unauthorized
        try:
            claims = self._verified(token, audience, int(time.monotonic() // VERIFIED_SECONDS))
        except jwt.PyJWKClientConnectionError:
            raise Unavailable from None
        except jwt.PyJWTError:
            raise Unauthorized from None
        if claims["exp"] < time.time():
            raise Unauthorized
        return Caller(
            audience=audience,
            username=claims["sub"] if audience == USER_AUDIENCE else None,
            roles=tuple(claims.get("roles", ())),
            permissions=frozenset(claims.get("permissions", ())),
            key_id=claims.get("key_id"),
            key_scopes=tuple(claims.get("key_scopes", ())),
            claims=claims,
        )

    def _verify_signature(self, token: str, audience: str, _when: int) -> dict[str, Any]:
        required: Options = {"require": ["exp", "aud", "iss"], "verify_sub": False}
        if audience == USER_AUDIENCE:
            key = self._users_keys.get_signing_key_from_jwt(token)
            return jwt.decode(
                token, key, algorithms=["EdDSA"], audience=audience, issuer=ISSUER, options=required
            )
        secret = self._secrets.get(audience)
        if not secret:
            raise jwt.InvalidAudienceError
        return jwt.decode(token, secret, algorithms=["HS256"], audience=audience, options=required)


def make_service_token(service: str, service_secret: str) -> str:
    """A token by which `service` proves itself to another service for a minute."""
    claims = {
        "iss": service,
        "aud": SERVICE_AUDIENCE,
        "exp": int(time.time()) + TOKEN_SECONDS,
        "jti": secrets.token_hex(8),
    }
    return jwt.encode(claims, service_secret, algorithm="HS256")


# What a route asks of its caller is declared on its view, by exactly one of these.


def requires(permission: str) -> Callable[[View], View]:
    """The route is for callers who hold `permission`; checked after the body's shape."""
    if permission not in PERMISSIONS:
        raise ValueError(f"{permission} is no permission of sdfleet")

    def declare(view: View) -> View:
        @functools.wraps(view)
        def checked(*args: Any, **kwargs: Any) -> Any:
            if not current_caller().may(permission):
                raise Forbidden(f"this needs the permission {permission}")
            return view(*args, **kwargs)

        return _declared(checked, audience=USER_AUDIENCE, rule=permission)  # type: ignore[return-value]

    return declare


def requires_identity(view: View) -> View:
    """The route is for every user."""
    return _declared(view, audience=USER_AUDIENCE, rule="any user")


def requires_key(view: View) -> View:
    """The route needs an API key but no user."""
    return _declared(view, audience=USER_AUDIENCE, rule="key only")


def for_services(view: View) -> View:
    """The route is for the other services."""
    return _declared(view, audience=SERVICE_AUDIENCE, rule="services")


def for_workers(view: View) -> View:
    """The route is for GPU workers."""
    return _declared(view, audience=WORKER_AUDIENCE, rule="workers")


def open_to_all(view: View) -> View:
    """The route needs nothing at all: health checks and public keys."""
    return _declared(view, audience=None, rule="open")


def _declared(view: View, audience: str | None, rule: str) -> View:
    view.access = (audience, rule)  # type: ignore[attr-defined]
    return view


def access_of(view: Callable[..., Any]) -> tuple[str | None, str] | None:
    """The declared (audience, rule) of a view, None when it declares none."""
    return getattr(view, "access", None)


def current_caller() -> Caller:
    """The caller of the current request."""
    caller: Caller = g.caller
    return caller


def guard_routes(app: Flask, authentication: Authentication) -> None:
    """Authenticate every request by what its route declares; a route that declares nothing is closed."""

    @app.before_request
    def authenticate() -> None:
        if request.endpoint is None:
            return  # no such route: the 404 says nothing that the gateway does not say
        declared = access_of(app.view_functions[request.endpoint])
        if declared is None:
            raise Forbidden
        audience, rule = declared
        if audience is None:
            return
        caller = authentication.caller_of(request.headers.get(HEADER), audience)
        if audience == USER_AUDIENCE and rule != "key only" and caller.username is None:
            raise Unauthorized
        g.caller = caller


def undeclared_routes(app: Flask) -> Iterable[str]:
    """The rules whose views declare no access, for the guard test."""
    return [
        str(rule) for rule in app.url_map.iter_rules() if access_of(app.view_functions[rule.endpoint]) is None
    ]
