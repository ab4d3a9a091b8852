"""How many instances an endpoint should have for the jobs that wait and run."""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

# Fewer instances must be able to do the work with so much of their capacity, or none is taken away.
SCALE_IN_LOAD = 0.5


@dataclass(frozen=True)
class Policy:
    """The deployment's rules of scaling."""

    backlog_per_instance: float
    cooldown: timedelta


@dataclass(frozen=True)
class Scale:
    """An endpoint's bounds, what it wants now, and since when it has little to do."""

    least: int
    most: int
    wanted: int
    quiet_since: datetime | None


def needed(load: int, backlog_per_instance: float) -> int:
    """Instances for so many jobs, waiting and running: one at least where there is any."""
    return math.ceil(load / backlog_per_instance)


def decide(scale: Scale, load: int, policy: Policy, at: datetime) -> Scale:
    """The scale from now on.

    More instances come at once. Fewer come one cool-down after the load fell, and a new cool-down passes
    before the next step; the last instance goes only when there is nothing to do at all.
    """
    wanted = _bounded(needed(load, policy.backlog_per_instance), scale)
    if wanted > scale.wanted or scale.wanted > scale.most:
        return Scale(scale.least, scale.most, wanted, None)
    enough = _bounded(needed(load, policy.backlog_per_instance * SCALE_IN_LOAD), scale)
    if enough >= scale.wanted:
        return Scale(scale.least, scale.most, scale.wanted, None)
    if scale.quiet_since is None:
        return Scale(scale.least, scale.most, scale.wanted, at)
    if at - scale.quiet_since < policy.cooldown:
        return scale
    return Scale(scale.least, scale.most, enough, None)


def _bounded(number: int, scale: Scale) -> int:
    return max(scale.least, min(scale.most, number))
