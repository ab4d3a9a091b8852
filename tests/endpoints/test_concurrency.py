"""Several copies at once: one winner, clean failures, no slot given twice."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

from werkzeug.test import TestResponse

from services.endpoints.workers import Slot
from tests.conftest import Keys
from tests.endpoints.conftest import GpuWorker, Others, Service

COPIES = 8


def at_once(act: Callable[[int], Any], copies: int = COPIES) -> list[Any]:
    """The results of so many calls that begin together."""
    barrier = Barrier(copies)

    def begin(number: int) -> Any:
        barrier.wait()
        return act(number)

    with ThreadPoolExecutor(copies) as pool:
        return list(pool.map(begin, range(copies)))


def creating(service: Service, **changes: Any) -> TestResponse:
    own = Service(service.client.application.test_client(), service.keys, service.environment)
    return own.create(**changes)


def test_of_many_creations_for_one_role_one_wins(service: Service, worker: GpuWorker) -> None:
    answers = at_once(lambda _: creating(service))
    assert Counter(answer.status_code for answer in answers) == {200: 1, 400: COPIES - 1}
    assert {answer.json["message"] for answer in answers if answer.status_code == 400} == {
        "role [artists] has a valid endpoint already, not allow to have another one"
    }
    assert len(service.listed()) == 1


def test_of_many_creations_with_one_name_one_wins(
    service: Service, worker: GpuWorker, others: Others
) -> None:
    others.roles = {f"role-{number}" for number in range(COPIES)}
    answers = at_once(
        lambda number: creating(service, endpoint_name="one", assign_to_roles=[f"role-{number}"])
    )
    assert Counter(answer.status_code for answer in answers) == {200: 1, 400: COPIES - 1}
    assert {answer.json["message"] for answer in answers if answer.status_code == 400} == {
        'Cannot create already existing model "esd-async-one"'
    }


def test_many_creations_never_pass_the_limit_together(
    service: Service, worker: GpuWorker, others: Others
) -> None:
    others.roles = {f"role-{number}" for number in range(COPIES)}
    answers = at_once(lambda number: creating(service, assign_to_roles=[f"role-{number}"]))
    assert Counter(answer.status_code for answer in answers) == {200: 4, 400: COPIES - 4}
    assert all(
        "ResourceLimitExceeded" in answer.json["message"] for answer in answers if answer.status_code == 400
    )


def test_many_repeats_with_one_idempotency_key_create_once(
    service: Service, keys: Keys, worker: GpuWorker
) -> None:
    user = keys.user() | {"Idempotency-Key": "k"}
    answers = at_once(lambda _: creating(service, user=user))
    ids = {answer.json["data"]["EndpointDeploymentJobId"] for answer in answers}
    assert (Counter(answer.status_code for answer in answers), len(ids)) == ({200: COPIES}, 1)


def test_many_reconcilers_give_every_instance_one_slot(service: Service) -> None:
    workers = [GpuWorker(service, f"worker-{number}", slots=3) for number in range(4)]
    for worker in workers:
        worker.heartbeat()
    endpoints = service.wiring.endpoints
    for role, wanted in (("artists", 5), ("painters", 4), ("dancers", 3)):
        service.created(assign_to_roles=[role], initial_instance_count=wanted)
    service.wiring.database["workers"].update_many({}, {"$set": {"slots_taken": []}})
    at_once(lambda _: service.wiring.controller.reconcile())
    service.wiring.controller.reconcile()
    present = service.wiring.workers.present()
    taken = Counter(slot["key"] for worker in present for slot in worker["slots_taken"])
    expected = {f"{e['_id']}:{number}" for e in endpoints.live() for number in range(e["wanted"])}
    assert taken == dict.fromkeys(expected, 1)
    assert all(len(worker["slots_taken"]) <= worker["slots"] for worker in present)


def test_of_many_takers_of_one_instance_one_wins(service: Service) -> None:
    for number in range(COPIES):
        GpuWorker(service, f"worker-{number}").heartbeat()
    slot, workers = Slot("endpoint", 0), service.wiring.workers
    won = at_once(lambda number: workers.take_slot(f"worker-{number}", slot, "esd-async-one", "Async"))
    assert Counter(won) == {True: 1, False: COPIES - 1}


def test_of_many_takers_of_the_last_slot_one_wins(service: Service) -> None:
    GpuWorker(service, "full", slots=1).heartbeat()
    workers = service.wiring.workers
    won = at_once(lambda number: workers.take_slot("full", Slot("e", number), "esd-async-one", "Async"))
    assert Counter(won) == {True: 1, False: COPIES - 1}


def test_one_copy_of_the_controller_acts_at_a_time(service: Service) -> None:
    holders = at_once(lambda _: service.wiring.endpoints.take_lease(30))
    (holder,) = [holder for holder in holders if holder]
    assert service.wiring.endpoints.take_lease(30) is None
    service.wiring.endpoints.drop_lease(holder)
    assert service.wiring.endpoints.take_lease(0.001) is not None


def test_many_heartbeats_of_new_workers_register_each_once(service: Service) -> None:
    at_once(lambda number: GpuWorker(service, f"worker-{number % 2}").heartbeat())
    assert [worker["_id"] for worker in service.wiring.workers.present()] == ["worker-0", "worker-1"]
