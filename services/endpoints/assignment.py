"""Which worker serves which endpoint: a plan from what is wanted and what is there, without side effects."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from services.endpoints.workers import Slot


@dataclass(frozen=True)
class Wish:
    """An endpoint and the instances that it wants."""

    endpoint_id: str
    instance_type: str
    wanted: int


@dataclass
class Machine:
    """A worker that may serve endpoints, and what it holds; planning changes `held`."""

    worker_id: str
    instance_type: str
    slots: int
    held: list[Slot] = field(default_factory=list)

    @property
    def free(self) -> int:
        return self.slots - len(self.held)

    def instances_of(self, endpoint_id: str) -> int:
        return sum(slot.endpoint_id == endpoint_id for slot in self.held)


@dataclass
class Plan:
    """What to change, in this order: slots to free, then slots to take, as (worker id, slot)."""

    frees: list[tuple[str, Slot]] = field(default_factory=list)
    takes: list[tuple[str, Slot]] = field(default_factory=list)


def fair_shares(wishes: Sequence[Wish], slots: int) -> dict[str, int]:
    """Instances of each endpoint when `slots` may not be enough: one each in turn, the oldest first."""
    shares = {wish.endpoint_id: 0 for wish in wishes}
    hungry = [wish for wish in wishes if wish.wanted > 0]
    while slots > 0 and hungry:
        for wish in hungry[:slots]:
            shares[wish.endpoint_id] += 1
        slots -= min(slots, len(hungry))
        hungry = [wish for wish in hungry if shares[wish.endpoint_id] < wish.wanted]
    return shares


def plan(
    wishes: Sequence[Wish], machines: Sequence[Machine], ceilings: Mapping[str, int] | None = None
) -> Plan:
    """The changes that give every endpoint its share, spread over workers first.

    `wishes` come oldest first; `ceilings` limit the slots of an instance type. A plan for a state that is as
    wanted is empty.
    """
    result = Plan()
    for instance_type in sorted({machine.instance_type for machine in machines}):
        of_type = [machine for machine in machines if machine.instance_type == instance_type]
        slots = sum(machine.slots for machine in of_type)
        shares = fair_shares(
            [wish for wish in wishes if wish.instance_type == instance_type],
            min(slots, (ceilings or {}).get(instance_type, slots)),
        )
        _free_surplus(of_type, shares, result)
        _spread(of_type, shares, result)
        _take_missing(of_type, shares, result)
    return result


def _free_surplus(machines: Iterable[Machine], shares: dict[str, int], result: Plan) -> None:
    for machine in machines:
        keep = [slot for slot in machine.held if slot.number < shares.get(slot.endpoint_id, 0)]
        keep = keep[: machine.slots]
        result.frees += [(machine.worker_id, slot) for slot in machine.held if slot not in keep]
        machine.held = keep


def _spread(machines: Sequence[Machine], shares: dict[str, int], result: Plan) -> None:
    """Move an instance from a worker that has two of its endpoint to one that has room and none."""
    for endpoint_id in shares:
        crowded = max(machines, key=lambda machine: machine.instances_of(endpoint_id))
        if crowded.instances_of(endpoint_id) < 2:
            continue
        empty = [m for m in machines if m.free > 0 and m.instances_of(endpoint_id) == 0]
        if empty:
            slot = next(slot for slot in reversed(crowded.held) if slot.endpoint_id == endpoint_id)
            crowded.held.remove(slot)
            result.frees.append((crowded.worker_id, slot))
            _take(max(empty, key=lambda machine: machine.free), slot, result)


def _take_missing(machines: Sequence[Machine], shares: dict[str, int], result: Plan) -> None:
    held = {slot for machine in machines for slot in machine.held}
    for number in range(max(shares.values(), default=0)):
        for endpoint_id, share in shares.items():
            slot = Slot(endpoint_id, number)
            if number >= share or slot in held:
                continue
            roomy = [machine for machine in machines if machine.free > 0]
            if not roomy:
                return
            _take(min(roomy, key=lambda m: (m.instances_of(slot.endpoint_id), -m.free)), slot, result)


def _take(machine: Machine, slot: Slot, result: Plan) -> None:
    machine.held.append(slot)
    result.takes.append((machine.worker_id, slot))
