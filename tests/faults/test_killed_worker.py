"""A worker that is killed in the middle of a job."""

import re
from pathlib import Path

from services.common.s3 import ObjectStore
from services.common.settings import S3Settings
from stack.demo import journey
from stack.secrets import load_or_make
from stack.settings import BUCKET
from tests.running import PARAMETERS, Running, running_stack


def objects_of(running: Running, job_id: str) -> list[str]:
    """The keys of everything in S3 that belongs to the job."""
    secrets = load_or_make(running.stack.folder)
    settings = S3Settings(
        endpoint_url=running.stack.creds().s3_url,
        bucket=BUCKET,
        access_key=secrets.s3_access_key,
        secret_key=secrets.s3_secret_key,
    )
    return sorted(key for key in ObjectStore(settings).keys_under("") if job_id in key)


def test_the_job_of_a_killed_worker_succeeds_on_the_next_one_with_one_set_of_results(tmp_path: Path) -> None:
    with running_stack(tmp_path, LEASE_SECONDS="4") as running:
        job_id = running.start(PARAMETERS | {"steps": 100, "batch_size": 2})
        killed = 0
        for job in journey.follow_job(running.artist, job_id):
            if not killed and job["progress"] and job["progress"]["step"] > 3:
                killed = running.stack.kill("worker-1")
        assert killed
        assert running.stack.pid("worker-1") not in (0, killed)
        job = running.job(job_id)
        assert (job["status"], job["attempts"]) == ("succeed", 2)
        assert job["image_names"] == ["image_0.png", "image_1.png"]
        *others, sealed = objects_of(running, job_id)
        assert others == [
            f"out/{job_id}/result/{job_id}_param.json",
            f"out/{job_id}/result/image_0.png",
            f"out/{job_id}/result/image_1.png",
            f"sagemaker_output/{job_id}.out",
            f"txt2img/infer_v2/{job_id}/api_param.json",
        ]
        # What both attempts computed: the parameters as they were checked at the start, once.
        assert re.fullmatch(rf"txt2img/infer_v2/{job_id}/started-[0-9a-f]{{64}}\.json", sealed)
