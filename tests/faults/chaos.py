"""Clients that do not give up, something that kills processes, and what is counted in the end."""

import io
import json
import random
import secrets
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psutil
import requests
from PIL import Image

from services.common.s3 import ObjectStore
from stack.demo.client import Target
from stack.failures import StackError
from stack.stack import Stack

ROLE = "chaos-artists"
PERMISSIONS = ["inference:create", "inference:list"]
VICTIMS = ("worker-1", "worker-2", "worker-3", "inference", "inference-tasks", "redis", "s3", "mongodb")
FINAL = {"succeed", "failed", "cancelled"}
RETRY_SECONDS = 0.5
PATIENCE_SECONDS = 180
PASSING = {429, 500, 502, 503, 504}


@dataclass
class Sent:
    """A job as its client knows it."""

    user: str
    seed: int
    images: int
    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    job_id: str = ""
    tries: int = 0


@dataclass
class User:
    """A client of the API that asks again whenever it gets no proper answer."""

    url: str
    api_key: str
    name: str
    password: str
    session: requests.Session = field(default_factory=requests.Session)

    def sign_in(self) -> None:
        """Get a token."""
        self.session.headers["x-api-key"] = self.api_key
        body = {"username": self.name, "password": self.password}
        token = self.ask("POST", "/auth/token", body).json()["data"]["access_token"]
        self.session.headers["Authorization"] = f"Bearer {token}"

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> requests.Response:
        """The first answer that is not a passing failure."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            seen = "no answer"
            with suppress(requests.RequestException):
                answer = self.session.request(method, self.url + path, json=body, headers=headers, timeout=20)
                if answer.status_code not in PASSING:
                    return answer
                seen = f"{answer.status_code} {answer.text[:200]}"
            assert time.monotonic() < deadline, f"{method} {path} for {PATIENCE_SECONDS} s: {seen}"
            time.sleep(RETRY_SECONDS)

    def send(self, sent: Sent, endpoint: str, model: str) -> None:
        """Create and start a job in one call; repeats name the same key."""
        parameters = {
            "prompt": "a red circle on a white background",
            "steps": 4,
            "width": 64,
            "height": 64,
            "seed": sent.seed,
            "batch_size": sent.images,
        }
        body = {
            "user_id": self.name,
            "inference_type": "Async",
            "task_type": "txt2img",
            "models": {"Stable-diffusion": [model]},
            "sagemaker_endpoint_name": endpoint,
            "payload_string": json.dumps(parameters),
        }
        answer = self.ask("POST", "/inferences", body, **{"Idempotency-Key": sent.key})
        assert answer.status_code == 202, answer.text
        sent.job_id = answer.json()["data"]["inference"]["inference_id"]


class Chaos:
    """Kills one process tree after the other, as a power switch would, until it is told to stop."""

    def __init__(self, stack: Stack, dice: random.Random) -> None:
        self.kills: Counter[str] = Counter()
        self._stack = stack
        self._dice = dice
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run, name="chaos")

    def __enter__(self) -> "Chaos":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join()

    def _run(self) -> None:
        waiting: list[str] = []
        while not self._enough.wait(self._dice.uniform(1.0, 4.0)):
            waiting = waiting or self._dice.sample(VICTIMS, len(VICTIMS))
            if self._kill(waiting[-1]):
                waiting.pop()

    def _kill(self, name: str) -> bool:
        with suppress(StackError, psutil.Error):
            pid = self._stack.pid(name)
            if pid:
                leader = psutil.Process(pid)
                for process in [leader, *leader.children(recursive=True)]:
                    with suppress(psutil.NoSuchProcess):
                        process.kill()
                self.kills[name] += 1
                return True
        return False


def make_users(target: Target, count: int) -> list[User]:
    """Users of one role, signed in."""
    administrator = User(target.url, target.api_key, target.username, target.password)
    administrator.sign_in()
    role = {"role_name": ROLE, "permissions": PERMISSIONS, "creator": target.username}
    assert administrator.ask("POST", "/roles", role).ok
    users = []
    for number in range(count):
        user = User(target.url, target.api_key, f"chaos-{number}", secrets.token_urlsafe(15))
        body = {"username": user.name, "password": user.password, "roles": [ROLE], "creator": target.username}
        assert administrator.ask("POST", "/users", body).ok
        user.sign_in()
        users.append(user)
    return users


def make_endpoint(target: Target, workers: int) -> str:
    """An endpoint of the role on all workers; its name, once it is in service."""
    administrator = User(target.url, target.api_key, target.username, target.password)
    administrator.sign_in()
    wanted = {
        "endpoint_type": "Async",
        "instance_type": "local.cpu",
        "initial_instance_count": workers,
        "autoscaling_enabled": False,
        "assign_to_roles": [ROLE],
        "creator": target.username,
    }
    made = administrator.ask("POST", "/endpoints", wanted)
    assert made.ok, made.text
    name = str(made.json()["data"]["endpoint_name"])
    wait_until(
        lambda: (
            administrator.ask("GET", f"/endpoints/{name}").json()["data"]["current_instance_count"]
            == str(workers)
        )
    )
    return name


def wait_until(condition: Callable[[], Any], seconds: float = PATIENCE_SECONDS) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.2)


def jobs_of(user: User) -> Iterator[dict[str, Any]]:
    """Every job of a user, by pages."""
    key = ""
    while True:
        page = user.ask("GET", f"/inferences?limit=100{key}").json()["data"]
        yield from page["inferences"]
        if page["last_evaluated_key"] is None:
            return
        key = f"&last_evaluated_key={page['last_evaluated_key']}"


@dataclass
class Count:
    """What became of the jobs."""

    accepted: int = 0
    succeed: int = 0
    failed: int = 0
    cancelled: int = 0
    lost: int = 0
    duplicated: int = 0
    kills: int = 0
    problems: list[str] = field(default_factory=list)

    def line(self) -> str:
        """The figures as JSON."""
        figures = {name: value for name, value in vars(self).items() if name != "problems"}
        return json.dumps(figures)


def count(users: list[User], sent: list[Sent], store: ObjectStore) -> Count:
    """Look at every job and every object."""
    result = Count(accepted=sum(bool(one.job_id) for one in sent))
    shown = {job["InferenceJobId"]: job for user in users for job in jobs_of(user)}
    known = {one.job_id for one in sent if one.job_id}
    strangers = set(shown) - known
    result.duplicated += len(strangers)  # one key made two jobs
    result.problems += [f"{job_id} was made without being answered" for job_id in strangers]
    keys = sorted(store.keys_under("out/"))
    for one in sent:
        job = shown.get(one.job_id)
        if job is None or job["status"] not in FINAL:
            result.lost += 1
            result.problems.append(f"{one.job_id} is {job and job['status']}")
            continue
        setattr(result, job["status"], getattr(result, job["status"]) + 1)
        if job["status"] == "succeed":
            _check_pictures(one, job, [key for key in keys if f"out/{one.job_id}/" in key], result)
    return result


def _check_pictures(one: Sent, job: dict[str, Any], keys: list[str], result: Count) -> None:
    folder = f"out/{one.job_id}/result/"
    names = [f"image_{number}.png" for number in range(one.images)]
    wanted = sorted([f"{folder}{one.job_id}_param.json", *(folder + name for name in names)])
    if set(keys) - set(wanted) or job["image_names"] != names:
        result.duplicated += 1
        result.problems.append(f"{one.job_id} has {keys}, says {job['image_names']}")
    if set(wanted) - set(keys):
        result.lost += 1
        result.problems.append(f"{one.job_id} lacks {set(wanted) - set(keys)}")
        return
    for number, url in enumerate(job["img_presigned_urls"]):
        picture = Image.open(io.BytesIO(requests.get(url, timeout=20).content))
        picture.load()
        if f"Seed: {one.seed + number}," not in picture.info["parameters"]:
            result.lost += 1
            result.problems.append(f"{one.job_id} has somebody else's picture {number}")
