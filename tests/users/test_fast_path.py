"""The gateway's question is answered alike before Flask and before gunicorn's threads."""

import pytest

from services.common import worker
from tests.users.driver import ADMIN_KEY, Driver, users_config


@pytest.fixture()
def remembering(environment) -> Driver:
    """A users service that keeps its verdicts for a minute."""
    return Driver.of(users_config(environment(), AUTHENTICATION_CACHE_SECONDS="60"))


def question(path: str = "/internal/authenticate", **headers: str) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"GET {path} HTTP/1.1\r\nHost: users\r\n{lines}\r\n".encode("latin-1")


def at_once(users: Driver, request: bytes) -> bytes | None:
    answer: bytes | None = users.app.extensions[worker.EXTENSION](request)
    return answer


def test_a_remembered_verdict_is_answered_as_flask_answers_it(remembering: Driver) -> None:
    for authorization, path in (
        (f"Bearer {remembering.admin.token}", "/internal/authenticate"),
        ("Bearer x", "/internal/authenticate"),
        ("", "/internal/authenticate-key"),
    ):
        headers = {"x-api-key": ADMIN_KEY, "Authorization": authorization}
        slow = remembering.client.get(path, headers=headers)
        fast = at_once(remembering, question(path, **headers))
        assert fast
        head = fast.decode().split("\r\n")
        assert head[0].startswith(f"HTTP/1.1 {slow.status_code} ")
        told = dict(line.split(": ", 1) for line in head[1:] if line)
        assert told.get("X-Internal-Token") == slow.headers.get("X-Internal-Token")
        assert told["Content-Length"] == "0"
        assert fast.endswith(b"\r\n\r\n")


def test_an_unknown_key_is_refused_from_memory_too(remembering: Driver) -> None:
    assert at_once(remembering, question(**{"x-api-key": "wrong"})) is None
    assert remembering.ask({"x-api-key": "wrong"}).status_code == 403
    fast = at_once(remembering, question(**{"x-api-key": "wrong"}))
    assert fast and fast.startswith(b"HTTP/1.1 403 ")


def test_whatever_is_not_just_the_question_goes_the_usual_way(remembering: Driver) -> None:
    headers = {"x-api-key": ADMIN_KEY, "Authorization": f"Bearer {remembering.admin.token}"}
    assert remembering.ask(headers).status_code == 200
    good = question(**headers)
    assert at_once(remembering, good)
    twice = good.replace(b"x-api-key", b"x-api-key: other\r\nx-api-key")
    for odd in (
        *(b"", good[:-1], good[:40], good + b"x", good + good, twice, b"\r\n" + good),
        *(
            good.replace(b"GET", b"POST"),
            good.replace(b"1.1", b"1.0"),
            good.replace(b"/internal", b"//internal"),
        ),
        *(good.replace(b"authenticate ", b"authenticate?a=1 "), good.replace(b"\r\n", b"\n")),
        *(good.replace(b"x-api-key", b"X_Api_Key"), good.replace(b"x-api-key:", b"x-api-key :")),
        *(
            question(**headers, **{"Content-Length": "3"}),
            question(**headers, **{"Transfer-Encoding": "chunked"}),
        ),
        *(question(**headers, Connection="close"), question(**headers, Upgrade="h2c")),
        question("/users", **headers),
    ):
        assert at_once(remembering, odd) is None, odd


def test_nothing_is_remembered_for_longer_than_the_cache_says(users: Driver) -> None:
    headers = {"x-api-key": ADMIN_KEY, "Authorization": f"Bearer {users.admin.token}"}
    assert users.ask(headers).status_code == 200
    assert at_once(users, question(**headers)) is None
