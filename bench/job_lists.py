"""Lists of jobs in deployments of a thousand, a hundred thousand and a million jobs, asked in turns."""

import os
import statistics
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

from services.common.paging import next_key
from services.common.settings import read_settings
from services.common.times import now
from services.inference.app import create_app
from services.inference.config import Config
from services.inference.context import Context
from services.inference.states import TASK_TYPES
from stack.infrastructure import Infrastructure
from tests.conftest import Keys
from tests.neighbours import neighbours

SIZES = tuple(int(size) for size in os.environ.get("BENCH_LIST_SIZES", "1000,100000,1000000").split(","))
ROUNDS = int(os.environ.get("BENCH_LIST_ROUNDS", "20"))
PAGE = 100
SEEDS = 1000  # records that are written; MongoDB multiplies them
USERS = 10
STATES = ("succeed", "succeed", "failed", "cancelled", "created")
OWNER = "user-3"


def measure(parts: Infrastructure) -> dict[str, Any]:
    """Median milliseconds of each kind of list by size, and of the largest to the smallest their ratio."""
    keys = Keys()
    with neighbours() as others:
        others.answers["candidates"] = lambda _: {"endpoints": []}
        deployments = {size: Deployment(parts, keys, others.url, size) for size in SIZES}
        figures: dict[str, dict[str, float]] = {}
        for name in KINDS:
            calls = {size: partial(made.ask, name) for size, made in deployments.items()}
            figures[name] = {str(size): ms for size, ms in in_turns(calls).items()}
    small, large = str(min(SIZES)), str(max(SIZES))
    ratios = {name: round(of[large] / of[small], 2) for name, of in figures.items()}
    means = {str(size): statistics.fmean(of[str(size)] for of in figures.values()) for size in SIZES}
    return {
        "list_ms": {size: round(ms, 1) for size, ms in means.items()},
        "list_ratio_1m_to_1k": round(means[large] / means[small], 2),
        "list_ms_of_each": figures,
        "list_ratio_of_each": ratios,
        "list_page": PAGE,
    }


def in_turns(calls: dict[int, Callable[[], None]]) -> dict[int, float]:
    """The median milliseconds of each call; one after the other, so that a busy moment hits all of them."""
    taken: dict[int, list[float]] = {size: [] for size in calls}
    for call in calls.values():
        call()
    for _ in range(ROUNDS):
        for size, call in calls.items():
            began = time.perf_counter()
            call()
            taken[size].append((time.perf_counter() - began) * 1000)
    return {size: round(statistics.median(times), 1) for size, times in taken.items()}


class Deployment:
    """An inference service with so many jobs."""

    def __init__(self, parts: Infrastructure, keys: Keys, others: str, size: int) -> None:
        environment = {
            "MONGODB_URL": parts.mongodb_url,
            "MONGODB_DATABASE_PREFIX": f"bench_{size}",
            "REDIS_URL": parts.redis_url,
            "S3_ENDPOINT_URL": parts.s3_endpoint_url,
            "AWS_ACCESS_KEY_ID": parts.s3_access_key,
            "AWS_SECRET_ACCESS_KEY": parts.s3_secret_key,
            "S3_BUCKET": "bench",
            "SERVICE_SECRET": keys.service_secret,
            "WORKER_SECRET": keys.worker_secret,
            "LOG_LEVEL": "ERROR",
        } | dict.fromkeys(("USERS_URL", "CHECKPOINTS_URL", "ENDPOINTS_URL"), others)
        app = create_app(read_settings(Config, environment), users_keys=keys)
        context: Context = app.extensions["inference"]
        fill(context, size)
        self._client = app.test_client()
        self._everybodys = keys.user("admin")
        self._own = keys.user(OWNER, permissions=("inference:list",))
        middle = now() - timedelta(seconds=size / 2)
        self._middle = next_key([{"created_at": middle, "_id": "x"}] * 2, 1, "created_at")

    def ask(self, kind: str) -> None:
        """One page of a list, full."""
        query, everybodys = KINDS[kind]
        headers = self._everybodys if everybodys else self._own
        path = f"/inferences?limit={PAGE}{query.format(middle=self._middle)}"
        answer = self._client.get(path, headers=headers)
        assert answer.status_code == 200, answer.text
        found = len(answer.json["data"]["inferences"])  # type: ignore[index]
        assert found == PAGE or min(SIZES) < SEEDS, f"{kind}: {found}"


# Every user of the smallest deployment has a hundred jobs, so these are first pages or of everybody's jobs.
KINDS = {
    "own": ("", False),
    "everybodys": ("", True),
    "everybodys from the middle": ("&last_evaluated_key={middle}", True),
    "everybodys by state": ("&status=succeed", True),
    "everybodys by task": ("&task_type=txt2img", True),
    "everybodys at an endpoint": ("&endpoint=esd-async-0", True),
}


def fill(context: Context, size: int) -> None:
    """So many jobs, one a second, of every user, state and task; the indexes are made afterwards."""
    jobs = context.database["jobs"]
    jobs.drop()
    at = now()
    jobs.insert_many(job(number, at) for number in range(min(SEEDS, size)))
    copies = max(1, size // SEEDS)
    if copies > 1:
        stages: list[dict[str, Any]] = [
            {"$set": {"copy": {"$range": [0, copies]}}},
            {"$unwind": "$copy"},
            {
                "$set": {
                    "_id": {"$concat": [{"$toString": "$copy"}, "-", "$_id"]},
                    "created_at": {"$subtract": ["$created_at", {"$multiply": ["$copy", SEEDS * 1000]}]},
                }
            },
            {"$unset": "copy"},
            {"$out": "jobs"},
        ]
        jobs.aggregate(stages, allowDiskUse=True)
    context.jobs.ensure_indexes()
    assert jobs.estimated_document_count() == max(size, 1)


def job(number: int, at: Any) -> dict[str, Any]:
    """A job as the service keeps it."""
    status, moment = STATES[number % len(STATES)], at - timedelta(seconds=number)
    task = TASK_TYPES[0] if number % 3 else TASK_TYPES[number % len(TASK_TYPES)]
    made = {"image_names": ["image_0.png"]} if status == "succeed" else {}
    return {
        "_id": f"{number:08}-0000-4000-8000-000000000000",
        "user": f"user-{number % USERS}",
        "roles": ["artists"],
        "task_type": task,
        "inference_type": "Async",
        "endpoint": f"esd-async-{number % 3}",
        "endpoint_id": "e1",
        "instance_type": "local.gpu",
        "backend": "local",
        "models": [
            {"id": "c1", "name": "m.safetensors", "type": "Stable-diffusion", "s3_location": "s3://bench/c1"}
        ],
        "priority": 0,
        "filters": {},
        "status": status,
        "created_at": moment,
        "completed_at": moment,
        "attempt": 1,
        "failures": [],
        "history": [{"status": "created", "actor": "ann", "at": moment}] * 4,
    } | made
