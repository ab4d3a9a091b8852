"""What an endpoint's parts are called at AWS: everything follows from the endpoint, nothing is remembered."""

from services.common.backends import BackendName
from services.endpoints.repository import Endpoint

NAME = BackendName.SAGEMAKER
VARIANT = "main"
# SageMaker takes 63 characters: the endpoint's name for people, and enough of its id that no other
# endpoint, of this deployment or another in the same account, is ever called the same.
LONGEST = 63
ID_DIGITS = 12


def sagemaker_name(endpoint: Endpoint) -> str:
    """The name of the endpoint's model, configuration and endpoint at SageMaker."""
    digits = str(endpoint["_id"]).replace("-", "")[:ID_DIGITS]
    return f"{endpoint['name'][: LONGEST - ID_DIGITS - 1]}-{digits}"


def output_path(bucket: str) -> str:
    """Where SageMaker puts the answers of asynchronous invocations."""
    return f"s3://{bucket}/sagemaker_output"


def failure_path(bucket: str) -> str:
    """Where SageMaker puts what asynchronous invocations failed with."""
    return f"s3://{bucket}/sagemaker_failure"
