"""The parts that give jobs to SageMaker and take their results, wired once per process."""

from dataclasses import dataclass

from services.common.mongo import Documents
from services.common.s3 import ObjectStore
from services.common.service_client import ServiceClient
from services.inference.parts import Parts
from services.inference.running import JobRunning
from services.inference.sagemaker.pickup import PickUp
from services.inference.sagemaker.repository import Invocations
from services.inference.sagemaker.runtime import SageMakerRuntime
from services.inference.sagemaker.settings import SageMakerSettings
from services.inference.sagemaker.settling import Settling
from services.inference.sagemaker.storage import InvocationStorage
from services.inference.sagemaker.submission import Submission


@dataclass(frozen=True)
class SageMaker:
    """What routes and tasks work with."""

    invocations: Invocations
    submission: Submission
    pick_up: PickUp


def wire(
    parts: Parts,
    running: JobRunning,
    database: Documents,
    store: ObjectStore,
    endpoints: ServiceClient,
    settings: SageMakerSettings,
) -> SageMaker:
    """Make the parts; nothing connects yet."""
    invocations, storage = Invocations(database), InvocationStorage(store)
    settling = Settling(parts, running, invocations, storage)
    runtime = SageMakerRuntime(settings)
    submission = Submission(parts, running, invocations, storage, settling, runtime, endpoints, settings)
    return SageMaker(invocations, submission, PickUp(invocations, storage, settling))
