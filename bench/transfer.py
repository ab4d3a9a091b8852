"""Uploads, imports and the worker's downloads of a large file, beside bare boto3 transfers of the same."""

import http.server
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import psutil
import requests
from boto3.s3.transfer import TransferConfig
from botocore.config import Config

from sdfleet_cli.api import Api
from sdfleet_cli.parts import Parts
from stack.failures import StackError
from stack.secrets import load_or_make
from stack.settings import BUCKET, ROOT, Settings
from stack.stack import Stack

MEGABYTES = int(os.environ.get("BENCH_TRANSFER_MB", "2048"))
AT_ONCE = 4  # parts; the same for boto3
PART_BYTES = 16 * 2**20
ROUNDS = 2  # in turn, the better of each: machines are noisy
WARM_UPS = 6  # enough for each process to have had one
SAMPLE_SECONDS = 0.05
WAIT_SECONDS = 900


def run() -> dict[str, Any]:
    """Ratios of throughput (1 is boto3's own), and by how much the service's memory grew meanwhile."""
    with tempfile.TemporaryDirectory(prefix="sdfleet-bench-") as name:
        folder = Path(name)
        file = folder / "model.safetensors"
        _write_model(file, MEGABYTES * 2**20)
        with _source(file) as source:
            settings = Settings.on_free_ports(0, CHECKPOINTS_IMPORT_ALLOW="127.0.0.1")
            with Stack(folder / "stack", settings) as stack:
                return _measured(_Platform(stack), file, source, folder)


def _measured(platform: "_Platform", file: Path, source: str, folder: Path) -> dict[str, Any]:
    """Each in turn and beside boto3: upload, import, download."""
    ids: list[str] = []
    _warm_up(platform, folder)
    seconds: dict[str, list[float]] = {}

    def take(name: str, work: Callable[[], Any]) -> None:
        began = time.monotonic()
        given = work()
        seconds.setdefault(name, []).append(given if name == "fetch" else time.monotonic() - began)

    with _memory(platform.stack) as growth:
        writing: list[tuple[str, Callable[[], Any]]] = [
            ("bare_up", lambda: platform.bare_upload(file)),
            ("upload", lambda: ids.append(platform.upload(file))),
            ("imported", lambda: ids.append(platform.imported(source))),
        ]
        for number in range(ROUNDS):  # the disk is still busy with what went before: each is once the first
            for name, work in writing if number % 2 == 0 else reversed(writing):
                take(name, work)
    model = platform.model(ids[0])
    for _ in range(ROUNDS):
        take("bare_down", lambda: platform.bare_download(folder / "bare"))
        take("fetch", lambda: _worker_fetch(model, folder / "cache"))
    best = {name: min(taken) for name, taken in seconds.items()}
    megabytes = file.stat().st_size / 2**20
    return {
        "megabytes": round(megabytes),
        "memory_growth_mb": round(growth[0] / 2**20, 1),
        "upload_ratio": round(best["bare_up"] / best["upload"], 3),
        "import_ratio": round(best["bare_up"] / best["imported"], 3),
        "worker_fetch_ratio": round(best["bare_down"] / best["fetch"], 3),
        "upload_mb_per_second": round(megabytes / best["upload"], 1),
        "import_mb_per_second": round(megabytes / best["imported"], 1),
        "worker_fetch_mb_per_second": round(megabytes / best["fetch"], 1),
        "bare_upload_mb_per_second": round(megabytes / best["bare_up"], 1),
        "bare_download_mb_per_second": round(megabytes / best["bare_down"], 1),
    }


def _warm_up(platform: "_Platform", folder: Path) -> None:
    """Small transfers first: what every process loads once is not the growth that is measured."""
    small = folder / "small.safetensors"
    _write_model(small, 2**20)
    with _source(small) as source:
        for _ in range(WARM_UPS):
            platform.upload(small)
            platform.imported(source)


def _write_model(path: Path, size: int) -> None:
    """A safetensors file of one tensor with bytes that do not compress."""
    header = b'{"weight":{"dtype":"U8","shape":[%d],"data_offsets":[0,%d]}}' % (size, size)
    block = secrets.token_bytes(2**20)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for _ in range(size // len(block)):
            file.write(block)


class _Platform:
    """A stack without GPU workers, as a client and as boto3 reach it."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        creds, keys = stack.creds(), load_or_make(stack.folder)
        self._api = Api(creds.url, creds.api_key)
        self._api.sign_in(creds.username, creds.password)
        self._s3 = boto3.client(
            "s3",
            endpoint_url=creds.s3_url,
            region_name="us-east-1",
            aws_access_key_id=keys.s3_access_key,
            aws_secret_access_key=keys.s3_secret_key,
            config=Config(
                s3={"addressing_style": "path"},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )
        self._transfer = TransferConfig(multipart_chunksize=PART_BYTES, max_concurrency=AT_ONCE)

    def bare_upload(self, file: Path) -> None:
        """boto3's own parallel upload."""
        self._s3.upload_file(str(file), BUCKET, "bare", Config=self._transfer)

    def bare_download(self, target: Path) -> None:
        """boto3's own parallel download."""
        self._s3.download_file(BUCKET, "bare", str(target), Config=self._transfer)
        target.unlink()

    def upload(self, file: Path) -> str:
        """As a client does: create, PUT the parts, complete, until it is Active; its id."""
        parts, name = Parts.of(file), f"{secrets.token_hex(4)}.safetensors"
        wanted = [{"filename": name, "parts_number": parts.count}]
        body = {"checkpoint_type": "Lora", "filenames": wanted, "params": {}}
        begun = self._api.call("POST", "/checkpoints", body)
        checkpoint_id = str(begun["checkpoint"]["id"])

        def put(numbered: tuple[int, str]) -> dict[str, Any]:
            number, url = numbered
            with parts.open(number, lambda _: None) as part:
                answer = requests.put(url, data=part, timeout=300)
            answer.raise_for_status()
            return {"PartNumber": number, "ETag": answer.headers["ETag"]}

        with ThreadPoolExecutor(AT_ONCE) as pool:
            tags = list(pool.map(put, enumerate(begun["s3PresignUrl"][name], start=1)))
        self._complete(checkpoint_id, {"status": "Active", "multi_parts_tags": {name: tags}})
        return checkpoint_id

    def imported(self, source: str) -> str:
        """Import by URL through Celery, until it is Active; its id."""
        url = f"{source}/{secrets.token_hex(4)}.safetensors"
        body = {"checkpoint_type": "Lora", "urls": [url], "params": {}}
        checkpoint_id = str(self._api.call("POST", "/checkpoints", body)["checkpoint"]["id"])
        self._complete(checkpoint_id, None)
        return checkpoint_id

    def _complete(self, checkpoint_id: str, body: dict[str, Any] | None) -> None:
        path = f"/checkpoints/{checkpoint_id}"
        if body:
            self._api.call("PUT", path, body)
        deadline = time.monotonic() + WAIT_SECONDS
        while (checkpoint := self._api.call("GET", path)["checkpoint"])["status"] != "Active":
            if error := checkpoint["params"].get("error"):
                raise StackError(error)
            if time.monotonic() > deadline:
                raise StackError(f"checkpoint {checkpoint_id} was not Active after {WAIT_SECONDS} s")
            time.sleep(0.05)

    def model(self, checkpoint_id: str) -> dict[str, Any]:
        """What a worker is told about the file."""
        checkpoint = self._api.call("GET", f"/checkpoints/{checkpoint_id}")["checkpoint"]
        key = f"Lora/checkpoint/custom/{checkpoint_id}/{checkpoint['name'][0]}"
        head = self._s3.head_object(Bucket=BUCKET, Key=key)
        return {
            "type": "Lora",
            "name": checkpoint["name"][0],
            "id": checkpoint_id,
            "url": self._s3.generate_presigned_url("get_object", {"Bucket": BUCKET, "Key": key}),
            "size": head["ContentLength"],
            "etag": head["ETag"].strip('"'),
        }


def _worker_fetch(model: dict[str, Any], cache: Path) -> float:
    """Seconds that a GPU worker's disk cache takes for the first use of the file, in a process of its own."""
    program = (
        "import json, pathlib, sys, time\n"
        "from gpu_worker.client import make_session\n"
        "from gpu_worker.files import FileCache\n"
        "from gpu_worker.jobs import ModelFile\n"
        "model = ModelFile(**json.loads(sys.argv[1]))\n"
        "began = time.monotonic()\n"
        "with FileCache(pathlib.Path(sys.argv[2]), 10**12, make_session()).open(model):\n"
        "    print(time.monotonic() - began)\n"
    )
    command = [sys.executable, "-c", program, json.dumps(model), str(cache)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    shutil.rmtree(cache, ignore_errors=True)
    if done.returncode:
        raise StackError(f"the worker's download failed: {done.stderr.strip().splitlines()[-1]}")
    return float(done.stdout)


@contextmanager
def _memory(stack: Stack) -> Iterator[list[int]]:
    """The bytes by which the service's and its Celery worker's memory grew at most, while the block runs."""
    roots = [psutil.Process(stack.pid(name)) for name in ("checkpoints", "checkpoints-tasks")]
    processes = [one for root in roots for one in (root, *root.children(recursive=True))]
    before, growth, over = _resident(processes), [0], threading.Event()

    def look() -> None:
        while not over.wait(SAMPLE_SECONDS):
            growth[0] = max(growth[0], _resident(processes) - before)

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    try:
        yield growth
    finally:
        over.set()
        looking.join()


def _resident(processes: list[psutil.Process]) -> int:
    return sum(process.memory_info().rss for process in processes if process.is_running())


class _Source(http.server.BaseHTTPRequestHandler):
    """Serves one file under every path, with sendfile: it costs next to nothing beside what is measured."""

    protocol_version = "HTTP/1.1"
    file: Path

    def do_GET(self) -> None:
        """Send the whole file; nobody asks for less here."""
        self.send_response(200)
        self.send_header("Content-Length", str(self.file.stat().st_size))
        self.end_headers()
        with self.file.open("rb") as content:
            self.connection.sendfile(content)

    def log_message(self, *_: Any) -> None:
        """Nothing is logged."""


@contextmanager
def _source(file: Path) -> Iterator[str]:
    """The address of a server of the file."""
    handler = type("Source", (_Source,), {"file": file})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
