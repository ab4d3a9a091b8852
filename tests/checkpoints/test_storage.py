"""What web pages may do with presigned URLs."""

from collections.abc import Callable

import requests

from tests.checkpoints.conftest import Service

PAGE = "https://studio.example.org"


def preflight(service: Service, origin: str) -> requests.Response:
    """What a browser asks before a page of `origin` PUTs a part."""
    ((_, (url, *_)),) = service.begin()["s3PresignUrl"].items()
    headers = {"Origin": origin, "Access-Control-Request-Method": "PUT"}
    return requests.options(url, headers=headers, timeout=10)


def test_pages_of_the_allowed_origins_may_upload_and_read_the_etag(
    start_service: Callable[..., Service],
) -> None:
    service = start_service(CORS_ORIGINS=f"{PAGE}, https://other.example.org")
    answer = preflight(service, PAGE)
    assert answer.headers["Access-Control-Allow-Origin"] == PAGE
    assert "PUT" in answer.headers["Access-Control-Allow-Methods"]
    assert "ETag" in answer.headers["Access-Control-Expose-Headers"]
    assert preflight(service, "https://evil.example.org").headers.get("Access-Control-Allow-Origin") is None


def test_origins_that_are_no_longer_allowed_lose_their_access(start_service: Callable[..., Service]) -> None:
    service = start_service(CORS_ORIGINS=PAGE)
    service.parts.storage.allow_origins(())
    assert preflight(service, PAGE).headers.get("Access-Control-Allow-Origin") is None
