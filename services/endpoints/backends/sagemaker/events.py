"""What EventBridge or SNS tells of endpoints, by way of an SQS queue.

An event only says which endpoint to look at: what is true of it is asked of SageMaker itself.
"""

import json
import logging
from typing import Any

from services.endpoints.backends.sagemaker.aws import Aws
from services.endpoints.backends.sagemaker.repository import Deployments

log = logging.getLogger(__name__)

MOST_BATCHES = 20  # in one round; the rest waits for the next


def read_events(aws: Aws, deployments: Deployments, queue_url: str) -> None:
    """Have the endpoints looked at that the queue tells of. Raises NotNow, DeniedByAws, RefusedByAws."""
    for _ in range(MOST_BATCHES):
        messages = aws.messages(queue_url)
        if not messages:
            return
        told = {name for message in messages if (name := endpoint_named_in(message["body"]))}
        deployments.tell(told)  # before they are deleted: after a death they come again
        for message in messages:
            aws.delete_message(queue_url, message["receipt"])


def endpoint_named_in(body: str) -> str | None:
    """The SageMaker endpoint that a message is about; None for what is no such event.

    EventBridge sends its event as it is, SNS inside a notification (unless raw delivery is on):
    https://docs.aws.amazon.com/sagemaker/latest/dg/automating-sagemaker-with-eventbridge.html
    """
    try:
        event: Any = json.loads(body)
        if event.get("Type") == "Notification":
            event = json.loads(event["Message"])
        name = event["detail"]["EndpointName"]
    except (ValueError, KeyError, TypeError, AttributeError):
        log.warning("a message in the queue of events is no event of an endpoint")
        return None
    return name if isinstance(name, str) else None
