"""Streams of server-sent events, from the service as it is really served."""

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pytest
from pymongo import MongoClient

from tests.conftest import Keys
from tests.inference.conftest import Service
from tests.inference.serving import Served, serving, wait_until
from tests.neighbours import Neighbours

PER_USER = 5


@dataclass(frozen=True)
class Event:
    """One event of a stream."""

    kind: str
    data: dict[str, Any]
    id: str | None = None


class Listener:
    """A client that reads a stream of events."""

    def __init__(self, served: Served, job_id: str, **options: Any) -> None:
        self.answer = served.ask("GET", f"/inferences/{job_id}/events", stream=True, **options)
        self._lines = self.answer.iter_lines(chunk_size=1)

    def __iter__(self) -> Iterator[Event]:
        fields: dict[str, str] = {}
        for line in self._lines:
            if line:
                name, _, value = line.decode().partition(": ")
                fields[name] = value
            elif "event" in fields:
                yield Event(fields["event"], json.loads(fields["data"]), fields.get("id"))
                fields = {}
            else:
                fields = {}

    def next(self, kind: str) -> Event:
        """The next event of a kind."""
        return next(event for event in self if event.kind == kind)

    def close(self) -> None:
        self.answer.close()


@pytest.fixture(scope="module")
def served(
    environment: Callable[..., dict[str, str]],
    keys: Keys,
    running_neighbours: Neighbours,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Served]:
    url = running_neighbours.url
    variables = environment(
        CHECKPOINTS_URL=url,
        ENDPOINTS_URL=url,
        USERS_URL=url,
        EVENT_STREAMS_PER_USER=str(PER_USER),
        WEB_THREADS="2",
    )
    with serving(tmp_path_factory.mktemp("served"), variables, keys) as running:
        yield running
    client: MongoClient[Any] = MongoClient(variables["MONGODB_URL"])
    client.drop_database(f"{variables['MONGODB_DATABASE_PREFIX']}_inference")
    client.close()


@pytest.fixture()
def listen(served: Served, others: Neighbours) -> Iterator[Callable[..., Listener]]:
    """Opens streams; they are closed in the end, and the service has noticed."""
    opened: list[Listener] = []

    def make(job_id: str, **options: Any) -> Listener:
        opened.append(Listener(served, job_id, **options))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def report(served: Served, job: dict[str, Any], step: int) -> None:
    progress = {"step": step, "steps": 9, "image": 0, "images": 1}
    served.work(f"jobs/{job['id']}/progress", attempt=job["attempt"], **progress)


def complete(served: Served, job: dict[str, Any]) -> None:
    served.work(f"jobs/{job['id']}/complete", attempt=job["attempt"], images=["image_0.png"])


def test_a_job_is_followed_from_its_creation_to_its_end(
    served: Served, listen: Callable[..., Listener]
) -> None:
    job_id = served.created()
    listener = listen(job_id)
    assert listener.answer.headers["Content-Type"].startswith("text/event-stream")
    events = iter(listener)
    assert next(events) == Event("status", {"status": "created", "running": False, "attempt": 0}, "0.created")
    served.ask("PUT", f"/inferences/{job_id}/start")
    assert next(events).data == {"status": "inprogress", "running": False, "attempt": 0}
    job = served.claimed()
    assert next(events).data == {"status": "inprogress", "running": True, "attempt": 1}
    report(served, job, 4)
    steps = [next(events), next(events)]
    assert [event.data["step"] for event in steps] == [0, 4]
    complete(served, job)
    assert next(events) == Event(
        "end", {"status": "succeed", "error": None, "image_names": ["image_0.png"]}, "end.succeed"
    )
    assert list(events) == []


def test_previews_are_told_to_those_who_listen(served: Served, listen: Callable[..., Listener]) -> None:
    served.started()
    job = served.claimed()
    listener = listen(job["id"])
    listener.next("progress")
    picture = base64.b64encode(b"\xff\xd8\xff" + bytes(40_000)).decode()
    for step in (1, 2):
        served.work(f"jobs/{job['id']}/preview", attempt=1, step=step, image=0, picture=picture)
        told = listener.next("preview")
        place = {"step": step, "image": 0, "attempt": 1}
        assert told == Event("preview", place | {"media_type": "image/jpeg", "picture": picture})
    complete(served, job)
    listener.next("end")


def test_who_comes_later_hears_first_how_the_job_stands(
    served: Served, listen: Callable[..., Listener]
) -> None:
    served.started()
    job = served.claimed()
    report(served, job, 4)
    events = iter(listen(job["id"], headers={"Last-Event-ID": "1.0.2"}))
    assert [next(events).data.get("step") for _ in range(2)] == [None, 4]
    complete(served, job)
    assert next(events).kind == "end"


def test_the_place_in_line_is_told_at_the_beginning(served: Served, listen: Callable[..., Listener]) -> None:
    first, second = served.started(), served.started()
    assert listen(second).next("status").data["queue_position"] == 2
    for _ in (first, second):
        complete(served, served.claimed())


def test_a_job_that_is_over_ends_the_stream_at_once(served: Served, listen: Callable[..., Listener]) -> None:
    job_id = served.created()
    served.ask("PUT", f"/inferences/{job_id}/cancel")
    assert [event.kind for event in listen(job_id)] == ["end"]


def test_a_client_that_heard_the_end_is_told_not_to_come_back(served: Served, others: Neighbours) -> None:
    job_id = served.created()
    served.ask("PUT", f"/inferences/{job_id}/cancel")
    again = served.ask("GET", f"/inferences/{job_id}/events", headers={"Last-Event-ID": "end.cancelled"})
    assert (again.status_code, again.content) == (204, b"")


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_a_failure_a_cancel_and_a_deletion_end_the_stream(
    served: Served, listen: Callable[..., Listener], method: str
) -> None:
    job_id = served.created()
    listener = listen(job_id)
    listener.next("status")
    if method == "PUT":
        served.ask("PUT", f"/inferences/{job_id}/cancel")
    else:
        assert served.ask("DELETE", "/inferences", {"inference_id_list": [job_id]}).status_code == 204
    ended = listener.next("end")
    assert ended.data["status"] == ("cancelled" if method == "PUT" else "deleted")


def test_without_redis_the_truth_in_mongodb_is_told(served: Served, listen: Callable[..., Listener]) -> None:
    served.started()
    job = served.claimed()
    listener = listen(job["id"])
    listener.next("progress")
    served.redis.kill()
    try:
        report(served, job, 6)
        assert listener.next("progress").data["step"] == 6
        complete(served, job)
        assert listener.next("end").data["status"] == "succeed"
    finally:
        served.redis.start()


def test_events_come_again_once_redis_is_back(served: Served, listen: Callable[..., Listener]) -> None:
    served.started()
    job = served.claimed()
    listener = listen(job["id"])
    listener.next("progress")
    served.redis.kill()
    served.redis.start()
    for step in range(1, 9):
        report(served, job, step)
    assert listener.next("progress").data["step"] in range(1, 9)
    complete(served, job)
    listener.next("end")


def test_open_streams_take_no_threads(served: Served, listen: Callable[..., Listener]) -> None:
    """Two threads serve far more streams than that, and requests beside them."""
    job_id = served.created()
    listeners = [listen(job_id, user="ann") for _ in range(PER_USER)]
    for listener in listeners:
        listener.next("status")
    assert served.ask("GET", f"/inferences/{job_id}").ok
    served.ask("PUT", f"/inferences/{job_id}/cancel")
    assert [listener.next("end").data["status"] for listener in listeners] == ["cancelled"] * PER_USER


def test_a_user_may_open_only_so_many(served: Served, listen: Callable[..., Listener]) -> None:
    job_id = served.created()
    for _ in range(PER_USER):
        listen(job_id)
    refused = listen(job_id).answer
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "5")
    assert "5 of them yours" in refused.json()["message"]


def test_places_are_free_again_when_clients_leave(served: Served, others: Neighbours) -> None:
    job_id = served.created()
    for _ in range(PER_USER):
        with closing(Listener(served, job_id)) as listener:
            listener.next("status")

    def accepted() -> bool:
        with closing(Listener(served, job_id)) as listener:
            return listener.answer.ok

    wait_until(accepted)


def test_others_jobs_are_not_found(service: Service) -> None:
    job_id = service.create()["id"]
    answer = service.get(f"/inferences/{job_id}/events", username="ben", permissions=("inference:list",))
    assert answer.status_code == 404
    assert service.get(f"/inferences/{job_id}/events", permissions=("inference:create",)).status_code == 403


def test_another_server_than_gunicorn_tells_how_the_job_stands(service: Service) -> None:
    job_id = service.started()
    answer = service.get(f"/inferences/{job_id}/events")
    assert answer.text.startswith("retry: 1000\n\nevent: status\nid: 0.queued\ndata: {")
    answer.close()
    wait_until(lambda: service.context.streams.count == 0)


def test_a_head_request_opens_nothing(served: Served, others: Neighbours) -> None:
    job_id = served.created()
    answer = served.ask("HEAD", f"/inferences/{job_id}/events")
    assert (answer.status_code, answer.content) == (200, b"")
