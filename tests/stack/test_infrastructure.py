"""The stores that tests of services use."""

from pathlib import Path
from urllib.parse import urlsplit

import boto3
import redis
from pymongo import MongoClient

from stack.infrastructure import Infrastructure, infrastructure
from stack.ports import is_free


def test_the_stores_work_and_end_with_the_block(tmp_path: Path) -> None:
    with infrastructure(tmp_path) as running:
        keep_something_everywhere(running)
        ports = [urlsplit(url).port for url in (running.redis_url, running.s3_endpoint_url)]
        assert not any(is_free(port) for port in ports if port)
    assert all(is_free(port) for port in ports if port)


def keep_something_everywhere(running: Infrastructure) -> None:
    with MongoClient(running.mongodb_url) as client, client.start_session() as session:
        with session.start_transaction():  # only a replica set has transactions
            client["test"]["things"].insert_one({"_id": 1}, session=session)
        assert client["test"]["things"].count_documents({}) == 1
    store = boto3.client(
        "s3",
        endpoint_url=running.s3_endpoint_url,
        aws_access_key_id=running.s3_access_key,
        aws_secret_access_key=running.s3_secret_key,
        region_name="us-east-1",
    )
    store.create_bucket(Bucket="test")
    store.put_object(Bucket="test", Key="a/thing", Body=b"content")
    assert store.get_object(Bucket="test", Key="a/thing")["Body"].read() == b"content"
    with redis.Redis.from_url(running.redis_url) as client:
        assert client.ping()
