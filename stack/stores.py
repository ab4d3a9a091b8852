"""How MongoDB, SeaweedFS (S3) and Redis are run, and when each is ready."""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import boto3
import redis
from botocore.config import Config
from botocore.exceptions import ClientError
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from stack.binaries import find
from stack.ports import HOST
from stack.program import Program

STORES = ("mongodb", "s3", "redis")
REPLICA_SET = "sdfleet"
REGION = "us-east-1"
NOT_YET_INITIATED = 94  # NotYetInitialized, from MongoDB's error codes


@dataclass(frozen=True)
class StorePorts:
    """Ports of the stores; SeaweedFS is four servers with two ports each."""

    mongodb: int
    redis: int
    s3: int
    s3_grpc: int
    master: int
    master_grpc: int
    volume: int
    volume_grpc: int
    filer: int
    filer_grpc: int

    @classmethod
    def names(cls) -> list[str]:
        """The names of the ports."""
        return [port.name for port in fields(cls)]


@dataclass(frozen=True)
class S3Keys:
    """The one identity that SeaweedFS knows."""

    access_key: str
    secret_key: str


def mongodb_url(port: int) -> str:
    """Where services reach the replica set."""
    return f"mongodb://{HOST}:{port}/?replicaSet={REPLICA_SET}"


def mongodb(folder: Path, port: int) -> Program:
    """A replica set of one, with a small cache."""
    data = folder / "mongodb"
    data.mkdir(parents=True, exist_ok=True)
    command = (
        *(str(find("mongod")), "--dbpath", str(data), "--bind_ip", HOST, "--port", str(port)),
        *("--replSet", REPLICA_SET, "--oplogSize", "256", "--wiredTigerCacheSizeGB", "0.25"),
        *("--nounixsocket", "--quiet", "--setParameter", "diagnosticDataCollectionEnabled=false"),
    )
    return Program("mongodb", command, ready=lambda: _ensure_primary(port), stop_seconds=20)


def _ensure_primary(port: int) -> None:
    """Initiate the replica set when it is new, move it when its port changed; raise until it takes writes."""
    member = {"_id": 0, "host": f"{HOST}:{port}"}
    client: MongoClient[dict[str, Any]]
    with MongoClient(HOST, port, directConnection=True, serverSelectionTimeoutMS=500) as client:
        try:
            config = client.admin.command("replSetGetConfig")["config"]
        except OperationFailure as error:
            if error.code != NOT_YET_INITIATED:
                raise
            client.admin.command("replSetInitiate", {"_id": REPLICA_SET, "members": [member]})
            config = {"members": [member]}
        if config["members"][0]["host"] != member["host"]:
            moved = config | {"members": [config["members"][0] | member], "version": config["version"] + 1}
            client.admin.command("replSetReconfig", moved, force=True)
        if not client.admin.command("hello")["isWritablePrimary"]:
            raise ConnectionError("the replica set has no primary yet")


def seaweedfs(folder: Path, ports: StorePorts, keys: S3Keys, bucket: str) -> Program:
    """An S3 server with one identity and one bucket, on this machine only."""
    data = folder / "s3"
    data.mkdir(parents=True, exist_ok=True)
    identities = folder / "s3.json"
    _write_identity(identities, keys)
    command = (
        *(str(find("weed")), "server", f"-dir={data}", f"-ip={HOST}", f"-ip.bind={HOST}"),
        *(f"-master.port={ports.master}", f"-master.port.grpc={ports.master_grpc}", "-master.peers=none"),
        *("-master.telemetry=false", "-master.volumeSizeLimitMB=1024"),
        # volumes are files that grow: their number is no limit, the free disk is
        *("-volume.max=100000", "-volume.minFreeSpace=500MiB"),
        *(f"-volume.port={ports.volume}", f"-volume.port.grpc={ports.volume_grpc}"),
        *("-filer", f"-filer.port={ports.filer}", f"-filer.port.grpc={ports.filer_grpc}"),
        *("-s3", f"-s3.port={ports.s3}", f"-s3.port.grpc={ports.s3_grpc}", f"-s3.config={identities}"),
        *("-s3.port.iceberg=0", "-s3.port.lance=0"),
    )
    return Program(
        "s3",
        command,
        ready=lambda: _ensure_bucket(ports.s3, keys, bucket),
        environment={"WEED_MASTER_VOLUME_GROWTH_COPY_1": "2", "GOMEMLIMIT": "512MiB"},
        # On SIGTERM version 4.48 closes its volumes and then waits for ever for its filer to write to them;
        # what it has answered for is with the kernel already.
        stop_signal="KILL",
    )


def remove_sockets(ports: StorePorts) -> None:
    """Remove the files that SeaweedFS leaves behind when it is killed."""
    named = {
        "master-grpc": ports.master_grpc,
        "volume-grpc": ports.volume_grpc,
        "filer-grpc": ports.filer_grpc,
        "s3-grpc": ports.s3_grpc,
        "filer": ports.filer,
        "s3": ports.s3,
    }
    for name, port in named.items():
        Path(f"/tmp/seaweedfs-{name}-{port}.sock").unlink(missing_ok=True)  # noqa: S108


def _write_identity(path: Path, keys: S3Keys) -> None:
    identity = {
        "name": "sdfleet",
        "credentials": [{"accessKey": keys.access_key, "secretKey": keys.secret_key}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    path.touch(mode=0o600)
    path.write_text(json.dumps({"identities": [identity]}))


def _ensure_bucket(port: int, keys: S3Keys, bucket: str) -> None:
    """Make the bucket when it is missing; raise until an object can be written and read."""
    client = boto3.client(
        "s3",
        endpoint_url=f"http://{HOST}:{port}",
        region_name=REGION,
        aws_access_key_id=keys.access_key,
        aws_secret_access_key=keys.secret_key,
        config=Config(
            retries={"total_max_attempts": 1},
            connect_timeout=1,
            read_timeout=10,
            s3={"addressing_style": "path"},
        ),
    )
    try:
        client.head_bucket(Bucket=bucket)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
            raise
        client.create_bucket(Bucket=bucket)
    client.put_object(Bucket=bucket, Key=".ready", Body=b"ready")
    client.get_object(Bucket=bucket, Key=".ready")


def redis_server(folder: Path, port: int) -> Program:
    """Redis without persistence: what it holds may be lost."""
    data = folder / "redis"
    data.mkdir(parents=True, exist_ok=True)
    command = (
        *(str(find("redis-server")), "--bind", HOST, "--port", str(port), "--dir", str(data)),
        *("--save", "", "--appendonly", "no", "--maxmemory", "256mb"),
    )
    return Program("redis", command, ready=lambda: redis.Redis(HOST, port, socket_timeout=1).ping())


def stores(folder: Path, ports: StorePorts, keys: S3Keys, bucket: str) -> list[Program]:
    """All three."""
    return [
        mongodb(folder, ports.mongodb),
        seaweedfs(folder, ports, keys, bucket),
        redis_server(folder, ports.redis),
    ]
