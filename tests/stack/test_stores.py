"""What the stores keep."""

from pathlib import Path

import boto3
from mypy_boto3_s3 import S3Client
from pymongo import MongoClient

from stack.program import Program
from stack.secrets import load_or_make
from stack.settings import BUCKET, Settings
from stack.stack import Stack
from stack.stores import mongodb_url
from stack.table import Table


class StoresTable(Table):
    def others(self) -> list[Program]:
        return []

    def workers(self) -> list[Program]:
        return []


class Stores(Stack):
    table_class = StoresTable


def s3(stack: Stack) -> S3Client:
    secrets = load_or_make(stack.folder)
    return boto3.client(
        "s3",
        endpoint_url=stack.creds().s3_url,
        aws_access_key_id=secrets.s3_access_key,
        aws_secret_access_key=secrets.s3_secret_key,
        region_name="us-east-1",
    )


def test_what_was_answered_for_survives_a_kill_and_a_change_of_ports(tmp_path: Path) -> None:
    with Stores(tmp_path, Settings.on_free_ports()) as stack:
        s3(stack).put_object(Bucket=BUCKET, Key="some/picture", Body=b"pixels")
        with MongoClient(mongodb_url(stack.record().ports["mongodb"])) as client:
            client["test"]["things"].insert_one({"_id": "kept"})
        for name in ("s3", "mongodb"):
            stack.kill(name)
    with Stores(tmp_path, Settings.on_free_ports()) as stack:
        assert s3(stack).get_object(Bucket=BUCKET, Key="some/picture")["Body"].read() == b"pixels"
        with MongoClient(mongodb_url(stack.record().ports["mongodb"])) as client:
            assert client["test"]["things"].count_documents({"_id": "kept"}) == 1
