"""What all tests share: real MongoDB, S3 and Redis, and callers with internal tokens."""

import secrets
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.common.identity import HEADER, PERMISSIONS, WORKER_AUDIENCE, make_service_token
from stack.infrastructure import Infrastructure, infrastructure

EVERYTHING = tuple(PERMISSIONS)


@dataclass(frozen=True)
class Keys:
    """The internal signing key and secrets of one test deployment."""

    private: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    service_secret: str = field(default_factory=lambda: secrets.token_hex(24))
    worker_secret: str = field(default_factory=lambda: secrets.token_hex(24))

    def get_signing_key_from_jwt(self, _token: str) -> Any:
        """What PyJWKClient does, without a users service."""
        return self.private.public_key()

    def user(
        self,
        username: str = "ann",
        roles: tuple[str, ...] = ("artists",),
        permissions: tuple[str, ...] = EVERYTHING,
        **claims: Any,
    ) -> dict[str, str]:
        """Headers of a call that the gateway has authenticated."""
        token = {
            "iss": "sdfleet",
            "aud": "sdfleet-internal",
            "sub": username,
            "roles": roles,
            "permissions": permissions,
            "key_id": "key",
            "exp": time.time() + 600,
        }
        return {HEADER: jwt.encode(token | claims, self.private, algorithm="EdDSA")}

    def service(self, name: str = "inference") -> dict[str, str]:
        """Headers of a call from another service."""
        return {HEADER: make_service_token(name, self.service_secret)}

    def worker(self, worker_id: str = "worker-1") -> dict[str, str]:
        """Headers of a call from a GPU worker."""
        claims = {"iss": worker_id, "aud": WORKER_AUDIENCE, "exp": time.time() + 600}
        return {HEADER: jwt.encode(claims, self.worker_secret, algorithm="HS256")}


@pytest.fixture(scope="session")
def keys() -> Keys:
    return Keys()


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Infrastructure]:
    """Real MongoDB (replica set), Redis and S3 for the whole run."""
    folder: Path = tmp_path_factory.mktemp("infrastructure")
    with infrastructure(folder) as running:
        yield running


@pytest.fixture(scope="session")
def environment(parts: Infrastructure, keys: Keys) -> Callable[..., dict[str, str]]:
    """Makes the environment of a deployment of its own: databases named for tests, its own bucket."""

    def make(**more: str) -> dict[str, str]:
        deployment = uuid.uuid4().hex[:8]
        return {
            "MONGODB_URL": parts.mongodb_url,
            "MONGODB_DATABASE_PREFIX": f"test_{deployment}",
            "REDIS_URL": parts.redis_url,
            "S3_ENDPOINT_URL": parts.s3_endpoint_url,
            "AWS_ACCESS_KEY_ID": parts.s3_access_key,
            "AWS_SECRET_ACCESS_KEY": parts.s3_secret_key,
            "S3_BUCKET": f"test-{deployment}",
            "SERVICE_SECRET": keys.service_secret,
            "WORKER_SECRET": keys.worker_secret,
            "USERS_URL": "http://127.0.0.1:1",
            "CHECKPOINTS_URL": "http://127.0.0.1:1",
            "ENDPOINTS_URL": "http://127.0.0.1:1",
            "INFERENCE_URL": "http://127.0.0.1:1",
            "DATASETS_URL": "http://127.0.0.1:1",
            "TRAINING_URL": "http://127.0.0.1:1",
        } | more

    return make
