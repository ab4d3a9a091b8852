"""Processes die at random while jobs are made: none is lost, none is made twice.

CHAOS_JOBS and CHAOS_SECONDS say how many and how long, CHAOS_SEED repeats the order of kills, CHAOS_REPORT
names a file for the line of figures.
"""

import os
import random
import threading
import time
from pathlib import Path

import pytest

from services.common.s3 import ObjectStore
from services.common.settings import S3Settings
from stack.demo.client import Client, Target
from stack.demo.journey import create_artist, upload_checkpoint
from stack.secrets import load_or_make
from stack.settings import BUCKET, Settings
from stack.stack import Stack
from tests.faults.chaos import (
    FINAL,
    VICTIMS,
    Chaos,
    Sent,
    User,
    count,
    jobs_of,
    make_endpoint,
    make_users,
    wait_until,
)
from tests.running import CHECKPOINT

JOBS = int(os.environ.get("CHAOS_JOBS", "200"))
SECONDS = float(os.environ.get("CHAOS_SECONDS", "120"))
SEED = int(os.environ.get("CHAOS_SEED") or random.randrange(2**31))
USERS = 4
WORKERS = 3
CANCELLED = 0.15  # of all jobs
SETTLE_SECONDS = 300
# Dead workers are missed sooner than usual, and a job may meet more of them.
QUICK = {"LEASE_SECONDS": "5", "MAX_ATTEMPTS": "5", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def send_all(user: User, sent: list[Sent], endpoint: str, failures: list[str]) -> None:
    """A user's afternoon: jobs all along, some of them cancelled."""
    dice = random.Random(f"{SEED} {user.name}")
    mine = [one for one in sent if one.user == user.name]
    try:
        for one in mine:
            time.sleep(dice.uniform(0, 1.6 * SECONDS / len(mine)))
            user.send(one, endpoint, CHECKPOINT.name)
            if dice.random() < CANCELLED:
                time.sleep(dice.uniform(0, 2))
                assert user.ask("PUT", f"/inferences/{one.job_id}/cancel").status_code in {200, 409}
    except Exception as error:
        failures.append(f"{user.name}: {error!r}")


@pytest.mark.chaos
@pytest.mark.timeout(1200)
def test_no_job_is_lost_and_none_is_made_twice_whatever_dies(tmp_path: Path) -> None:
    dice = random.Random(SEED)
    with Stack(tmp_path, Settings.on_free_ports(1, **QUICK)) as stack:
        for number in range(2, WORKERS + 1):  # one after the other: each imports for long
            stack.scale(number)
        creds = stack.creds()
        target = Target(creds.url, creds.api_key, creds.username, creds.password)
        artist = create_artist(target)
        upload_checkpoint(artist, CHECKPOINT, CHECKPOINT.name)
        share_checkpoint(artist)
        users = make_users(target, USERS)
        endpoint = make_endpoint(target, WORKERS)
        sent = [
            Sent(users[place % USERS].name, 1000 * place, dice.choice([1, 1, 2])) for place in range(JOBS)
        ]

        failures: list[str] = []
        began = time.monotonic()
        with Chaos(stack, dice) as chaos:
            clients = [
                threading.Thread(target=send_all, args=(user, sent, endpoint, failures)) for user in users
            ]
            for client in clients:
                client.start()
            time.sleep(SECONDS)
        for client in clients:
            client.join()
        print(f"\n{JOBS} jobs were sent in {time.monotonic() - began:.0f} s; kills: {dict(chaos.kills)}")
        assert failures == []

        wait_until(lambda: all(stack.pid(name) for name in VICTIMS))
        began = time.monotonic()
        wait_until(
            lambda: all(job["status"] in FINAL for user in users for job in jobs_of(user)), SETTLE_SECONDS
        )
        print(f"all were over {time.monotonic() - began:.0f} s later")
        result = count(users, sent, object_store(stack))
        result.kills = chaos.kills.total()
        for problem in result.problems:
            print(problem)
        print(f"seed {SEED}\n{result.line()}")
        if report := os.environ.get("CHAOS_REPORT"):
            Path(report).write_text(result.line() + "\n")
    assert (result.accepted, result.lost, result.duplicated) == (JOBS, 0, 0)
    assert result.problems == []
    assert result.succeed + result.failed + result.cancelled == JOBS
    assert set(chaos.kills) == set(VICTIMS), "not everything was killed: give it more CHAOS_SECONDS"


def share_checkpoint(artist: Client) -> None:
    """Let everybody use the checkpoint."""
    (checkpoint,) = artist.call("GET", "/checkpoints")["checkpoints"]
    body = {"params": {}, "allowed_roles_or_users": ["*"]}
    artist.call("PUT", f"/checkpoints/{checkpoint['id']}", body)


def object_store(stack: Stack) -> ObjectStore:
    """The bucket of the stack."""
    its = load_or_make(stack.folder)
    settings = S3Settings(
        endpoint_url=stack.creds().s3_url,
        bucket=BUCKET,
        access_key=its.s3_access_key,
        secret_key=its.s3_secret_key,
    )
    return ObjectStore(settings)
