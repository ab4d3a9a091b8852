"""Claims of many workers at once, from the inference service as it is served."""

import os
import threading
import time
from datetime import timedelta
from typing import Any

import jwt
import requests

from services.common.identity import HEADER, WORKER_AUDIENCE
from services.common.mongo import open_database
from services.common.settings import MongoSettings
from services.common.times import now
from services.inference.scheduling import rank_of
from stack.secrets import load_or_make
from stack.settings import Settings
from stack.stack import Stack
from stack.stores import mongodb_url

WORKERS = 50
JOBS = int(os.environ.get("BENCH_CLAIMED_JOBS", "3000"))
USERS = 20
ENDPOINT = "bench-claims"


def measure(stack: Stack, settings: Settings) -> dict[str, Any]:
    """Jobs a second that 50 workers claim, one at a time, of a line of 20 users' jobs; each goes to one."""
    database = open_database(MongoSettings(mongodb_url(settings.ports["mongodb"])), "inference")
    database["jobs"].insert_many(waiting(number) for number in range(JOBS))
    url = f"{settings.url('inference')}/internal/claim"
    secret = load_or_make(stack.folder).worker_secret
    claimed: list[list[str]] = [[] for _ in range(WORKERS)]
    together = threading.Barrier(WORKERS + 1)

    def work(number: int) -> None:
        name = f"bench-worker-{number}"
        claims = {"iss": name, "aud": WORKER_AUDIENCE, "exp": time.time() + 600}
        body = {"worker_id": name, "endpoints": [ENDPOINT], "room": 1}
        with requests.Session() as session:
            session.headers[HEADER] = jwt.encode(claims, secret, algorithm="HS256")
            together.wait()
            while jobs := _jobs(session.post(url, json=body, timeout=60)):
                claimed[number] += [job["id"] for job in jobs]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(WORKERS)]
    for thread in threads:
        thread.start()
    together.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    database["jobs"].delete_many({"endpoint": ENDPOINT})
    database.client.close()
    all_claimed = [job_id for one in claimed for job_id in one]
    assert len(all_claimed) == len(set(all_claimed)) == JOBS, "a job was lost, or given twice"
    return {
        "claims_per_second": round(JOBS / seconds, 1),
        "claiming_workers": WORKERS,
        "claimed_jobs": JOBS,
        "most_and_least_of_a_worker": [max(map(len, claimed)), min(map(len, claimed))],
    }


def _jobs(answer: requests.Response) -> list[dict[str, Any]]:
    answer.raise_for_status()
    jobs: list[dict[str, Any]] = answer.json()["jobs"]
    return jobs


def waiting(number: int) -> dict[str, Any]:
    """A job in line, as its start has put it there."""
    at = now() + timedelta(milliseconds=number)
    return {
        "_id": f"bench-claim-{number}",
        "user": f"bench-user-{number % USERS}",
        "roles": [],
        "task_type": "txt2img",
        "inference_type": "Async",
        "endpoint": ENDPOINT,
        "endpoint_id": "bench",
        "instance_type": "local.cpu",
        "backend": "local",
        "models": [],
        "priority": 0,
        "rank": rank_of(1 + number // USERS, 0),
        "overtaken": 0,
        "batch_key": str(number),
        "steps": 20,
        "images": 1,
        "seed": number,
        "sealed_parameters": "bench",
        "request_id": None,
        "status": "queued",
        "created_at": at,
        "queued_at": at,
        "attempt": 0,
        "failures": [],
        "history": [],
    }
