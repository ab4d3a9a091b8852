"""What SageMaker is asked to run: the worker image with the argument `train`, its inputs and its outputs.

SageMaker puts each channel below /opt/ml/input/data, and keeps /opt/ml/checkpoints the same as a folder of
the bucket, from before the container starts until after it has ended: states, progress, samples and results
go that way. The container gets no address and no secret of the platform.
"""

import json
from collections.abc import Mapping
from typing import Any

from services.training.repository import Work
from services.training.sagemaker.settings import SageMakerSettings
from services.training.storage import WorkStorage

LOCAL_PATH = "/opt/ml/checkpoints"


def job_name(work: Work) -> str:
    """The name of this attempt's training job: of at most 63 letters, digits and hyphens."""
    return f"sdfleet-{work['_id']}-{work['attempt']}"


def write_inputs(storage: WorkStorage, work: Work, document: Mapping[str, Any]) -> None:
    """Put what the container reads into the bucket: the work, and the list of the objects that it needs."""
    keys = [file["url"] for file in document["files"]]
    for concept in document["concepts"]:
        keys += [picture["url"] for kind in ("pictures", "class_pictures") for picture in concept[kind]]
    bucket = {"prefix": f"s3://{storage.objects.bucket}/"}
    storage.write_input(work, "work/work.json", json.dumps(document).encode())
    storage.write_input(work, "data.manifest", json.dumps([bucket, *dict.fromkeys(keys)]).encode())


def job_arguments(settings: SageMakerSettings, storage: WorkStorage, work: Work) -> dict[str, Any]:
    """CreateTrainingJob's arguments."""
    return {
        "TrainingJobName": job_name(work),
        "AlgorithmSpecification": {"TrainingImage": settings.image_uri, "TrainingInputMode": "File"},
        "RoleArn": settings.execution_role_arn,
        "HyperParameters": {"work_id": work["_id"], "attempt": str(work["attempt"])},
        "InputDataConfig": [
            _channel("work", "S3Prefix", storage.sagemaker_location(work, "input/work/")),
            _channel("data", "ManifestFile", storage.sagemaker_location(work, "input/data.manifest")),
        ],
        "OutputDataConfig": {"S3OutputPath": storage.sagemaker_location(work, "model")},
        "CheckpointConfig": {
            "S3Uri": storage.sagemaker_location(work, "checkpoints"),
            "LocalPath": LOCAL_PATH,
        },
        "ResourceConfig": {
            "InstanceType": work["instance_type"],
            "InstanceCount": 1,
            "VolumeSizeInGB": settings.volume_gigabytes,
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": settings.longest_seconds},
        "Environment": dict(settings.container_environment),
        "Tags": [{"Key": "sdfleet:training", "Value": work["_id"]}],
        **settings.network(),
    }


def _channel(name: str, kind: str, location: str) -> dict[str, Any]:
    source = {"S3DataType": kind, "S3Uri": location, "S3DataDistributionType": "FullyReplicated"}
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}}
