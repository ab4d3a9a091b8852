"""Real-time starts, from the service as it is really served: who waits holds no thread."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from pymongo import MongoClient

from tests.conftest import Keys
from tests.inference.serving import PARAMETERS, WANTED, Served, serving, wait_until
from tests.neighbours import Neighbours

THREADS, WAITS = 2, 6
REALTIME = "esd-real-time-one"


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
        WEB_THREADS=str(THREADS),
        REALTIME_WAIT_SECONDS="15",
        EVENT_STREAMS_PER_USER=str(WAITS),
    )
    with serving(tmp_path_factory.mktemp("served"), variables, keys) as running:
        yield running
    client: MongoClient[Any] = MongoClient(variables["MONGODB_URL"])
    client.drop_database(f"{variables['MONGODB_DATABASE_PREFIX']}_inference")
    client.close()


class Waits:
    """Clients that each wait for a job of their own."""

    def __init__(self, served: Served, count: int) -> None:
        self.answers: list[requests.Response] = []
        self._served = served
        self._threads = [threading.Thread(target=self._ask) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        body = WANTED | {"inference_type": "Real-time", "payload_string": PARAMETERS}
        self.answers.append(self._served.ask("POST", "/inferences", body, headers={"X-Request-Id": "mine"}))

    def over(self) -> list[requests.Response]:
        for thread in self._threads:
            thread.join()
        return self.answers


def claim(served: Served, count: int) -> list[dict[str, Any]]:
    """So many Real-time jobs, as soon as they wait."""
    jobs: list[dict[str, Any]] = []

    def claimed() -> bool:
        jobs.extend(served.work("claim", endpoints=[REALTIME])["jobs"])
        return len(jobs) == count

    wait_until(claimed)
    return jobs


def test_more_clients_wait_than_there_are_threads(served: Served, others: Neighbours) -> None:
    """With a thread for each, the workers' claims would come after the clients have given up."""
    waits = Waits(served, WAITS)
    for job in claim(served, WAITS):
        served.work(f"jobs/{job['id']}/complete", attempt=1, images=["image_0.png"])
    answers = waits.over()
    assert [answer.status_code for answer in answers] == [200] * WAITS
    shown = [answer.json()["data"] for answer in answers]
    assert {job["status"] for job in shown} == {"succeed"}
    assert len({job["InferenceJobId"] for job in shown}) == WAITS
    assert all(answer.headers["X-Request-Id"] == "mine" for answer in answers)
    again = served.ask("PUT", f"/inferences/{shown[0]['InferenceJobId']}/start")
    assert again.json()["data"]["status"] == "succeed"


def test_who_waits_too_often_is_sent_away_and_the_job_goes_on(served: Served, others: Neighbours) -> None:
    waits = Waits(served, WAITS)
    jobs = claim(served, WAITS)
    late = Waits(served, 1)
    (answer,) = late.over()
    assert (answer.status_code, answer.json()["statusCode"]) == (504, 504)
    for job in [*jobs, *claim(served, 1)]:
        served.work(f"jobs/{job['id']}/complete", attempt=1, images=["image_0.png"])
    assert [one.status_code for one in waits.over()] == [200] * WAITS


@pytest.mark.parametrize(("end", "status"), [("cancel", 200), ("delete", 404), ("nothing", 504)])
def test_other_ends_are_answered_too(served: Served, others: Neighbours, end: str, status: int) -> None:
    waits = Waits(served, 1)
    (job,) = claim(served, 1)
    if end == "cancel":
        served.ask("PUT", f"/inferences/{job['id']}/cancel")
    elif end == "delete":
        served.ask("DELETE", "/inferences", {"inference_id_list": [job["id"]]})
    (answer,) = waits.over()
    assert answer.status_code == status, answer.text
    if end == "nothing":
        assert "goes on" in answer.json()["message"]
        served.work(f"jobs/{job['id']}/complete", attempt=1, images=["image_0.png"])


def test_without_redis_the_end_is_found_in_mongodb(served: Served, others: Neighbours) -> None:
    waits = Waits(served, 1)
    (job,) = claim(served, 1)
    served.redis.kill()
    try:
        served.work(f"jobs/{job['id']}/complete", attempt=1, images=["image_0.png"])
        (answer,) = waits.over()
    finally:
        served.redis.start()
    assert (answer.status_code, answer.json()["data"]["status"]) == (200, "succeed")
