"""Decisions of autoscaling: pure, with times at hand."""

from datetime import UTC, datetime, timedelta

from services.endpoints.autoscaling import Policy, Scale, decide

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
COOLDOWN = timedelta(seconds=60)
POLICY = Policy(backlog_per_instance=5, cooldown=COOLDOWN)


def scale(wanted: int, least: int = 0, most: int = 4, quiet_since: datetime | None = None) -> Scale:
    return Scale(least, most, wanted, quiet_since)


def test_one_job_wakes_a_sleeping_endpoint() -> None:
    assert decide(scale(0), load=1, policy=POLICY, at=NOON).wanted == 1


def test_nothing_to_do_leaves_a_sleeping_endpoint_asleep() -> None:
    assert decide(scale(0), load=0, policy=POLICY, at=NOON) == scale(0)


def test_more_jobs_bring_more_instances_at_once() -> None:
    assert decide(scale(1), load=11, policy=POLICY, at=NOON).wanted == 3


def test_never_more_than_the_largest_number() -> None:
    assert decide(scale(1), load=1000, policy=POLICY, at=NOON).wanted == 4


def test_never_fewer_than_the_smallest_number() -> None:
    long_ago = NOON - 10 * COOLDOWN
    assert decide(scale(2, least=2, quiet_since=long_ago), load=0, policy=POLICY, at=NOON).wanted == 2


def test_the_last_instance_goes_one_cooldown_after_the_last_job() -> None:
    quiet = decide(scale(1), load=0, policy=POLICY, at=NOON)
    assert (quiet.wanted, quiet.quiet_since) == (1, NOON)
    assert decide(quiet, load=0, policy=POLICY, at=NOON + COOLDOWN / 2).wanted == 1
    assert decide(quiet, load=0, policy=POLICY, at=NOON + COOLDOWN).wanted == 0


def test_a_job_during_the_cooldown_begins_it_anew() -> None:
    quiet = decide(scale(1), load=0, policy=POLICY, at=NOON)
    busy = decide(quiet, load=1, policy=POLICY, at=NOON + COOLDOWN / 2)
    assert busy == scale(1, quiet_since=None)


def test_the_last_instance_stays_while_a_job_runs() -> None:
    assert decide(scale(1, quiet_since=NOON - COOLDOWN), load=1, policy=POLICY, at=NOON).wanted == 1


def test_a_load_near_the_border_changes_nothing() -> None:
    """Two instances came for 6 jobs; 4 would fit on one, but a 5th and 6th would bring the second again."""
    assert decide(scale(2, quiet_since=NOON - COOLDOWN), load=4, policy=POLICY, at=NOON) == scale(2)
    assert decide(scale(2, quiet_since=NOON - COOLDOWN), load=2, policy=POLICY, at=NOON).wanted == 1
