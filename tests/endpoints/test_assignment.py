"""The plan of who serves what: pure, so it is tried on many fleets."""

from hypothesis import given
from hypothesis import strategies as st

from services.endpoints.assignment import Machine, Plan, Wish, fair_shares, plan
from services.endpoints.workers import Slot


def wish(name: str, wanted: int, instance_type: str = "gpu") -> Wish:
    return Wish(name, instance_type, wanted)


def machine(name: str, slots: int, *held: Slot, instance_type: str = "gpu") -> Machine:
    return Machine(name, instance_type, slots, list(held))


def takes(result: Plan) -> list[tuple[str, str]]:
    return [(worker, slot.endpoint_id) for worker, slot in result.takes]


def test_everybody_gets_what_they_want_when_there_is_enough() -> None:
    assert fair_shares([wish("a", 3), wish("b", 1)], 4) == {"a": 3, "b": 1}


def test_scarce_slots_are_shared_evenly_and_the_odd_one_goes_to_the_oldest() -> None:
    assert fair_shares([wish("a", 9), wish("b", 9)], 5) == {"a": 3, "b": 2}


def test_a_small_wish_is_met_before_a_large_one_takes_the_rest() -> None:
    assert fair_shares([wish("large", 9), wish("small", 1)], 4) == {"large": 3, "small": 1}


def test_no_slots_no_shares() -> None:
    assert fair_shares([wish("a", 2)], 0) == {"a": 0}


def test_instances_of_one_endpoint_spread_over_workers_first() -> None:
    result = plan([wish("a", 2)], [machine("one", 4), machine("two", 4)])
    assert sorted(takes(result)) == [("one", "a"), ("two", "a")]


def test_one_worker_serves_several_endpoints_and_several_instances() -> None:
    result = plan([wish("a", 2), wish("b", 1)], [machine("one", 4)])
    assert sorted(takes(result)) == [("one", "a"), ("one", "a"), ("one", "b")]


def test_an_endpoint_gets_workers_of_its_instance_type_only() -> None:
    machines = [machine("cpu-box", 4, instance_type="cpu"), machine("gpu-box", 4)]
    assert takes(plan([wish("a", 2)], machines)) == [("gpu-box", "a"), ("gpu-box", "a")]


def test_what_nobody_wants_any_more_is_freed() -> None:
    old = Slot("deleted", 0)
    assert plan([], [machine("one", 4, old)]).frees == [("one", old)]


def test_a_worker_that_offers_fewer_slots_than_before_gives_the_rest_back() -> None:
    machines = [machine("one", 1, Slot("a", 0), Slot("b", 0)), machine("two", 1)]
    result = plan([wish("a", 1), wish("b", 1)], machines)
    assert result.frees == [("one", Slot("b", 0))]
    assert result.takes == [("two", Slot("b", 0))]


def test_a_new_worker_takes_an_instance_from_a_crowded_one() -> None:
    machines = [machine("one", 4, Slot("a", 0), Slot("a", 1)), machine("two", 4)]
    result = plan([wish("a", 2)], machines)
    assert result.frees == [("one", Slot("a", 1))]
    assert result.takes == [("two", Slot("a", 1))]


def test_a_newcomer_gets_its_share_from_one_that_has_more() -> None:
    machines = [machine("one", 2, Slot("a", 0), Slot("a", 1))]
    result = plan([wish("a", 2), wish("b", 1)], machines)
    assert result.frees == [("one", Slot("a", 1))]
    assert result.takes == [("one", Slot("b", 0))]


def test_a_ceiling_limits_what_all_endpoints_of_a_type_get_together() -> None:
    result = plan([wish("a", 3), wish("b", 3)], [machine("one", 8)], {"gpu": 3})
    assert sorted(takes(result)) == [("one", "a"), ("one", "a"), ("one", "b")]


wishes_of_fleets = st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["cpu", "gpu"])), max_size=5).map(
    lambda drawn: [wish(f"e{i}", wanted, kind) for i, (wanted, kind) in enumerate(drawn)]
)
machines_of_fleets = st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["cpu", "gpu"])), max_size=5).map(
    lambda drawn: [machine(f"w{i}", slots, instance_type=kind) for i, (slots, kind) in enumerate(drawn)]
)


@given(before=wishes_of_fleets, after=wishes_of_fleets, machines=machines_of_fleets)
def test_any_fleet_comes_to_rest_with_fair_shares_and_no_worker_too_full(
    before: list[Wish], after: list[Wish], machines: list[Machine]
) -> None:
    plan(before, machines)  # planning leaves the machines as the plan makes them
    for _ in range(30):
        if plan(after, machines) == Plan():
            break
    assert plan(after, machines) == Plan()
    assert all(len(machine.held) <= machine.slots for machine in machines)
    for kind in ("cpu", "gpu"):
        slots = sum(machine.slots for machine in machines if machine.instance_type == kind)
        for name, share in fair_shares([w for w in after if w.instance_type == kind], slots).items():
            assert sum(machine.instances_of(name) for machine in machines) == share
