"""Webhooks: who hears of the end of a job, signed how, how often, and where nothing is sent to."""

import json
import logging
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from services.common.times import now
from services.inference.announcing import AT_ONCE, Announcing
from services.inference.sending import Sender
from tests.inference.conftest import WANTED, Service
from tests.inference.receiver import Receiver, is_genuine, receiver
from tests.inference.serving import wait_until

ARTIST = ("inference:create", "inference:list")


@pytest.fixture()
def hook() -> Iterator[Receiver]:
    with receiver() as running:
        yield running


@pytest.fixture()
def service(service: Service) -> Service:
    for name in ("webhooks", "deliveries", "turns"):
        service.context.database[name].delete_many({})
    return service


def subscribe(service: Service, url: str, **body: Any) -> dict[str, Any]:
    answer = service.post("/webhooks", {"url": url} | body, permissions=ARTIST)
    assert answer.status_code == 201, answer.json
    return dict(answer.json["data"])


def announce(service: Service, allowed: tuple[str, ...] = ("127.0.0.1",), pause: float = 0.0) -> int:
    """A round of the background work; the receiver's host is one that may be private."""
    parts = service.context
    sender = Sender(allowed)
    return Announcing(
        parts.jobs, parts.webhook_records, parts.deliveries, sender, first_pause=pause, most_attempts=3
    ).run()


def finished(service: Service, status: str = "succeed", **changes: Any) -> str:
    job_id = service.started(**changes)
    if status == "cancelled":
        service.put(f"/inferences/{job_id}/cancel")
        return job_id
    job = service.claimed()
    if status == "succeed":
        service.work(f"jobs/{job_id}/complete", attempt=job["attempt"], images=["image_0.png"])
    else:
        service.work(f"jobs/{job_id}/fail", attempt=job["attempt"], kind="request", message="too odd")
    return job_id


def log_of(service: Service, webhook_id: str) -> list[dict[str, Any]]:
    return list(service.get(f"/webhooks/{webhook_id}/deliveries").json["data"]["deliveries"])


@pytest.mark.parametrize("status", ["succeed", "failed", "cancelled"])
def test_the_end_of_a_job_is_sent_signed(service: Service, hook: Receiver, status: str) -> None:
    made = subscribe(service, hook.url)
    job_id = finished(service, status)
    assert announce(service) == 1
    ((headers, body),) = hook.came
    assert is_genuine(made["secret"], headers, body)
    assert not is_genuine(made["secret"], headers, body + b" ")
    told = json.loads(body)
    assert told["id"] == headers["webhook-id"]
    assert (told["type"], told["data"]["inference_id"]) == (f"inference.{status}", job_id)
    assert told["data"]["error"] == ("too odd" if status == "failed" else None)
    (entry,) = log_of(service, made["webhook"]["id"])
    assert (entry["state"], entry["attempts"], entry["log"][0]["status"]) == ("delivered", 1, 200)
    assert announce(service) == 0


def test_a_job_names_an_address_of_its_own_and_gets_its_secret_once(service: Service, hook: Receiver) -> None:
    answer = service.client.post(
        "/inferences",
        json=WANTED | {"webhook_url": hook.url, "payload_string": "{}"},
        headers=service.keys.user() | {"Idempotency-Key": "k"},
    )
    assert answer.status_code == 202
    job = answer.json["data"]["inference"]
    assert "whsec_" not in service.get(f"/inferences/{job['inference_id']}").text
    assert "whsec_" not in service.put(f"/inferences/{job['inference_id']}/start").text
    service.put(f"/inferences/{job['inference_id']}/cancel")
    announce(service)
    ((headers, body),) = hook.came
    assert is_genuine(job["webhook_secret"], headers, body)
    deliveries = service.get(f"/inferences/{job['inference_id']}/deliveries")
    assert deliveries.json["data"]["deliveries"][0]["state"] == "delivered"
    assert "whsec_" not in deliveries.text


def test_a_repeated_creation_tells_the_same_secret(service: Service, hook: Receiver) -> None:
    headers = service.keys.user() | {"Idempotency-Key": "the same"}
    answers = [
        service.client.post("/inferences", json=WANTED | {"webhook_url": hook.url}, headers=headers).json
        for _ in range(2)
    ]
    assert (
        answers[0]["data"]["inference"]["webhook_secret"] == answers[1]["data"]["inference"]["webhook_secret"]
    )


def test_what_is_not_taken_is_sent_again_with_the_same_id(service: Service, hook: Receiver) -> None:
    made = subscribe(service, hook.url)
    hook.answers = [500, 302, 204]
    finished(service)
    assert sum(announce(service) for _ in range(3)) == 3
    assert len({body["id"] for body in hook.bodies}) == 1
    (entry,) = log_of(service, made["webhook"]["id"])
    assert (entry["state"], [one["status"] for one in entry["log"]]) == ("delivered", [500, 302, 204])


def test_pauses_grow_and_end_in_giving_up(service: Service, hook: Receiver) -> None:
    made = subscribe(service, hook.url)
    hook.answers = [503]
    finished(service)
    deliveries = service.context.database["deliveries"]
    pauses = []
    for _ in range(3):
        deliveries.update_many({"state": "waiting"}, [{"$set": {"due_at": "$created_at"}}])
        assert announce(service, pause=100.0) == 1
        entry = deliveries.find_one({})
        if entry["state"] == "waiting":
            pauses.append(round((entry["due_at"] - entry["log"][-1]["at"]).total_seconds()))
    assert pauses == [100, 400]
    (entry,) = log_of(service, made["webhook"]["id"])
    assert (entry["state"], entry["attempts"]) == ("given up", 3)


def test_a_receiver_that_is_gone_is_not_asked_again(service: Service, hook: Receiver) -> None:
    made = subscribe(service, hook.url)
    hook.answers = [410]
    finished(service)
    assert announce(service) + announce(service) == 1
    assert log_of(service, made["webhook"]["id"])[0]["state"] == "given up"


def test_redirects_are_not_followed(service: Service, hook: Receiver) -> None:
    with receiver() as elsewhere:
        subscribe(service, hook.url)
        hook.answers, hook.location = [307], elsewhere.url
        finished(service)
        announce(service)
        assert len(hook.came) > 0
        assert elsewhere.came == []


def test_private_addresses_get_nothing(service: Service, hook: Receiver) -> None:
    made = subscribe(service, hook.url)
    finished(service)
    assert announce(service, allowed=(), pause=60.0) == 1
    assert hook.came == []
    (attempt,) = log_of(service, made["webhook"]["id"])[0]["log"]
    assert (attempt["status"], attempt["error"]) == (None, "127.0.0.1 is not a public address")


@pytest.mark.parametrize("url", ["ftp://example.org/", "http://u:p@example.org/", "http:///x", "nothing"])
def test_addresses_that_cannot_be_used_are_refused(service: Service, url: str) -> None:
    refused = service.post("/webhooks", {"url": url})
    assert (refused.status_code, refused.json["message"].split(":")[0]) == (400, "url cannot be used")
    assert service.post("/inferences", WANTED | {"webhook_url": url}).status_code == 400


def test_only_the_events_that_are_asked_for_are_sent(service: Service, hook: Receiver) -> None:
    subscribe(service, hook.url, events=["failed"])
    finished(service)
    failed = finished(service, "failed")
    announce(service)
    assert [body["data"]["inference_id"] for body in hook.bodies] == [failed]


def test_a_webhook_of_a_key_hears_of_jobs_of_that_key_alone(service: Service, hook: Receiver) -> None:
    body = {"url": hook.url, "this_key_only": True}
    service.post("/webhooks", body, permissions=ARTIST, key_id="mine")
    for key in ("mine", "another"):
        job = service.post("/inferences", WANTED, key_id=key).json["data"]["inference"]
        service.put(f"/inferences/{job['id']}/cancel")
    assert announce(service) == 1


def test_who_dies_between_the_end_and_its_announcement_leaves_it_to_the_next(
    service: Service, hook: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscribe(service, hook.url)
    finished(service)
    jobs = service.context.jobs
    with monkeypatch.context() as patch:

        def die(_job_id: str) -> None:
            raise SystemExit

        patch.setattr(jobs, "announced", die)
        with pytest.raises(SystemExit):
            announce(service)
    # The delivery is there already; made again it is the same.
    assert announce(service) == 1
    assert len(hook.came) == 1


def test_who_dies_while_sending_leaves_it_to_the_next(service: Service, hook: Receiver) -> None:
    subscribe(service, hook.url)
    finished(service)
    deliveries = service.context.database["deliveries"]
    parts = service.context
    parts.announcing.announce(parts.jobs.unannounced()[0])
    (waiting,) = parts.deliveries.due("ann", 4)
    assert parts.deliveries.claim(waiting, 60)
    assert not parts.deliveries.claim(waiting, 60)
    assert announce(service) == 0
    deliveries.update_one({}, [{"$set": {"due_at": "$created_at"}}])
    assert announce(service) == 1


def test_one_process_at_a_time_announces(service: Service, hook: Receiver) -> None:
    subscribe(service, hook.url)
    finished(service)
    assert service.context.deliveries.take_turn("announcing", 60)
    assert announce(service) == 0
    service.context.deliveries.end_turn("announcing")
    assert announce(service) == 1


def end_of_bens(service: Service, url: str) -> None:
    """Another user listens, and has a job that is over."""
    answer = service.post("/webhooks", {"url": url}, username="ben", permissions=ARTIST)
    assert answer.status_code == 201
    bens = service.post("/inferences", WANTED | {"user_id": "ben"}, username="ben").json["data"]["inference"]
    service.put(f"/inferences/{bens['id']}/cancel", username="ben")


def test_one_users_flood_leaves_room_for_others(service: Service, hook: Receiver) -> None:
    """However much longer ago the flood was due."""
    subscribe(service, hook.url)
    finished(service, "cancelled")
    announce(service)
    deliveries = service.context.database["deliveries"]
    one = deliveries.find_one({}) or {}
    past = now() - timedelta(hours=1)
    fresh = {"state": "waiting", "due_at": past, "attempts": 0, "log": []}
    deliveries.insert_many(one | fresh | {"_id": f"flood-{number}"} for number in range(600))
    end_of_bens(service, hook.url)
    announce(service)
    users = [body["data"]["user_id"] for body in hook.bodies[1:]]
    assert users.index("ben") < 4 + AT_ONCE


def test_a_receiver_that_answers_slowly_holds_up_nobody_else(service: Service, hook: Receiver) -> None:
    with receiver() as slow:
        slow.gate.clear()
        subscribe(service, slow.url)
        for _ in range(6):
            finished(service, "cancelled")
        end_of_bens(service, hook.url)
        round_of_it = threading.Thread(target=announce, args=(service,))
        round_of_it.start()
        try:
            wait_until(lambda: len(hook.came) == 1)
            for _ in range(3):
                bens = service.create(user_id="ben")["id"]
                service.put(f"/inferences/{bens}/cancel")
                service.context.announcing.announce(service.context.jobs.find(bens, None) or {})
            wait_until(lambda: len(hook.came) == 4)
        finally:
            slow.gate.set()
            round_of_it.join()


def test_no_secret_is_shown_again_or_logged(
    service: Service, hook: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        made = subscribe(service, hook.url)
        finished(service)
        announce(service)
        webhook = f"/webhooks/{made['webhook']['id']}"
        for path in ("/webhooks", webhook, f"{webhook}/deliveries"):
            assert "whsec_" not in service.get(path).text
        changed = service.put(webhook, {"events": ["failed"]}, permissions=ARTIST)
        assert (changed.json["data"]["webhook"]["events"], "whsec_" in changed.text) == (["failed"], False)
    assert made["secret"] not in caplog.text


def test_others_do_not_find_it(service: Service, hook: Receiver) -> None:
    path = f"/webhooks/{subscribe(service, hook.url)['webhook']['id']}"
    ben: dict[str, Any] = {"username": "ben", "permissions": ARTIST}
    assert service.get("/webhooks", **ben).json["data"]["webhooks"] == []
    assert service.get(path, **ben).status_code == 404
    assert service.get(f"{path}/deliveries", **ben).status_code == 404
    assert service.put(path, {"active": False}, **ben).status_code == 404
    service.delete("/webhooks", {"webhook_id_list": [path.rsplit("/", 1)[1]]}, **ben)
    assert service.get(path).json["data"]["webhook"]["active"] is True


def test_what_is_deleted_or_off_hears_nothing_more(service: Service, hook: Receiver) -> None:
    made = subscribe(service, hook.url)["webhook"]
    finished(service)
    service.put(f"/webhooks/{made['id']}", {"active": False})
    assert announce(service) == 0
    service.delete("/webhooks", {"webhook_id_list": [made["id"]]})
    assert service.get("/webhooks").json["data"]["webhooks"] == []
    assert "webhooks" not in service.context.jobs.find(finished(service, "cancelled"), None)


def test_a_user_has_only_so_many(service: Service, hook: Receiver) -> None:
    for _ in range(20):
        subscribe(service, hook.url)
    refused = service.post("/webhooks", {"url": hook.url}, permissions=ARTIST)
    assert (refused.status_code, "delete one first" in refused.json["message"]) == (400, True)


def test_a_repeat_with_an_idempotency_key_makes_one(service: Service, hook: Receiver) -> None:
    headers = service.keys.user() | {"Idempotency-Key": "once"}
    made = [service.client.post("/webhooks", json={"url": hook.url}, headers=headers).json for _ in range(2)]
    assert made[0]["data"] == made[1]["data"]


def test_who_gets_a_former_users_name_tells_the_former_nothing(service: Service, hook: Receiver) -> None:
    subscribe(service, hook.url)
    body, headers = {"usernames": ["ann"]}, service.keys.service("users")
    before = finished(service)
    assert service.client.post("/internal/forget-webhooks", json=body, headers=headers).status_code == 204
    after = finished(service)
    announce(service)
    assert hook.came == [], (before, after)
    refused = service.client.post("/internal/forget-webhooks", json=body, headers=service.keys.user())
    assert refused.status_code == 401
