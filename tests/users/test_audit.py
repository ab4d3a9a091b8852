"""The audit log: every change, every refused sign-in, no secrets."""

import threading
import time
from typing import Any

from flask import g
from werkzeug.serving import make_server

from tests.users.driver import ADMIN, ADMIN_KEY, Driver


def entries(users: Driver, query: str) -> list[dict[str, Any]]:
    answer = users.call("GET", f"/audit?{query}", who=users.admin)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.get_json()["data"]["entries"]
    return found


def test_a_change_says_who_what_whom_where_from_and_how_it_ended(users: Driver) -> None:
    person = users.person()
    users.call("DELETE", "/users", {"user_name_list": [person.username]}, users.admin, address="203.0.113.5")
    entry, *_ = entries(users, f"name={person.username}&action=DELETE /users")
    assert (entry["actor"], entry["names"], entry["address"]) == (ADMIN, [person.username], "203.0.113.5")
    assert (entry["resource"], entry["outcome"], entry["status"]) == ("users", "done", 204)
    assert entry["key_id"]
    assert entry["request_id"]


def test_refused_sign_ins_and_refused_changes_are_there(users: Driver) -> None:
    person = users.person()
    users.call("POST", "/auth/token", {"username": person.username, "password": "wrong"})
    users.call("DELETE", "/users", {"user_name_list": [ADMIN]}, person)
    refused = entries(users, f"actor={person.username}&outcome=refused")
    assert {(entry["action"], entry["status"]) for entry in refused} == {
        ("POST /auth/token", 401),
        ("DELETE /users", 403),
    }


def test_reading_leaves_no_entry(users: Driver) -> None:
    person = users.person()
    users.call("GET", "/users", who=person)
    assert [entry["action"] for entry in entries(users, f"actor={person.username}")] == ["POST /auth/token"]


def test_entries_hold_no_secrets(users: Driver) -> None:
    person = users.person()
    key = users.call("POST", "/users/me/api-keys", {"name": "x"}, person).get_json()["data"]["api_key"]
    users.call("PUT", "/users/me/password", {"old": person.password, "new": "a new secret"}, person)
    users.call("POST", "/auth/revoke", {"refresh_token": person.refresh_token}, users.admin)
    text = users.call("GET", "/audit", who=users.admin).text
    for secret in (
        person.password,
        "a new secret",
        person.token,
        person.refresh_token,
        key["key"],
        ADMIN_KEY,
    ):
        assert secret not in text


def test_the_log_comes_page_by_page_and_by_time(users: Driver) -> None:
    person = users.person()
    for _ in range(3):
        users.call("POST", "/auth/token", {"username": person.username, "password": "wrong"})
    path = f"/audit?actor={person.username}&limit=2"
    first = users.call("GET", path, who=users.admin).get_json()["data"]
    second = users.call("GET", f"{path}&last_evaluated_key={first['last_evaluated_key']}", who=users.admin)
    ids = [entry["id"] for entry in first["entries"] + second.get_json()["data"]["entries"]]
    assert len(ids) == len(set(ids)) == 4
    assert second.get_json()["data"]["last_evaluated_key"] is None
    assert entries(users, f"actor={person.username}&until=1000000000") == []
    assert len(entries(users, f"actor={person.username}&since=1000000000")) == 4


def test_nobody_can_change_or_delete_entries(users: Driver) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert users.call(method, "/audit", {}, users.admin).status_code == 405


def test_other_services_hand_over_what_clients_changed_there(users: Driver) -> None:
    """A stand-in for another service, with the same hook and sender, and real HTTP to users."""
    from flask import Flask

    from services.common.audit import AuditSender, audit_changes
    from services.common.identity import USER_AUDIENCE, Caller, requires
    from services.common.service_client import ServiceClient
    from services.users.parts import EXTENSION

    config = users.app.extensions[EXTENSION].config
    server = make_server("127.0.0.1", 0, users.app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    client = ServiceClient("endpoints", f"http://127.0.0.1:{server.server_port}", config.service_secret)
    other = Flask("endpoints")
    audit_changes(other, AuditSender(client))

    @other.before_request
    def authenticated() -> None:
        g.caller = Caller(USER_AUDIENCE, "ann of endpoints", permissions=frozenset({"train:all"}), key_id="k")

    @other.delete("/endpoints/<name>")
    @requires("train:delete")
    def delete(name: str) -> tuple[str, int]:
        return "", 204

    try:
        other.test_client().delete("/endpoints/esd-1", headers={"X-Forwarded-For": "203.0.113.8"})
        deadline = time.monotonic() + 10
        while not (found := entries(users, "actor=ann of endpoints")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        server.shutdown()
        server.server_close()
    assert (found[0]["action"], found[0]["names"]) == ("DELETE /endpoints/<name>", ["esd-1"])
    assert (found[0]["address"], found[0]["outcome"]) == ("203.0.113.8", "done")


def test_a_client_cannot_write_entries(users: Driver) -> None:
    verdict = users.ask({"x-api-key": ADMIN_KEY, "Authorization": f"Bearer {users.admin.token}"})
    headers = {"X-Internal-Token": verdict.headers["X-Internal-Token"]}
    assert users.client.post("/internal/audit", json={"entries": []}, headers=headers).status_code == 401
