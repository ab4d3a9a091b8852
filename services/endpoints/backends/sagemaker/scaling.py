"""How Application Auto Scaling follows the line of an asynchronous endpoint, and wakes it from zero.

The metrics and the two kinds of policies are those that SageMaker's developer guide gives for asynchronous
endpoints ("Autoscale an asynchronous endpoint").
"""

from typing import Any

from services.endpoints.backends.sagemaker.names import VARIANT

METRICS = "AWS/SageMaker"
MINUTE = 60


def resource_id(name: str) -> str:
    """What is scaled, as Application Auto Scaling calls it."""
    return f"endpoint/{name}/variant/{VARIANT}"


def policy_names(name: str) -> list[str]:
    """The policies of an endpoint."""
    return [f"{name}-backlog", f"{name}-wake"]


def alarm_name(name: str) -> str:
    """The alarm that wakes an endpoint."""
    return f"{name}-HasBacklogWithoutCapacity"


def backlog_policy(name: str, backlog_per_instance: float, cooldown_seconds: int) -> dict[str, Any]:
    """As many instances as keep the backlog of each at the wanted number; none when nothing waits."""
    return {
        "PolicyName": policy_names(name)[0],
        "PolicyType": "TargetTrackingScaling",
        "TargetTrackingScalingPolicyConfiguration": {
            "TargetValue": backlog_per_instance,
            "CustomizedMetricSpecification": {
                "MetricName": "ApproximateBacklogSizePerInstance",
                "Namespace": METRICS,
                "Dimensions": [{"Name": "EndpointName", "Value": name}],
                "Statistic": "Average",
            },
            "ScaleInCooldown": cooldown_seconds,
            "ScaleOutCooldown": MINUTE,
        },
    }


def wake_policy(name: str) -> dict[str, Any]:
    """One instance more, for an endpoint that has none: its backlog per instance says nothing."""
    return {
        "PolicyName": policy_names(name)[1],
        "PolicyType": "StepScaling",
        "StepScalingPolicyConfiguration": {
            "AdjustmentType": "ChangeInCapacity",
            "MetricAggregationType": "Average",
            "Cooldown": 5 * MINUTE,
            "StepAdjustments": [{"MetricIntervalLowerBound": 0, "ScalingAdjustment": 1}],
        },
    }


def wake_alarm(name: str, policy_arn: str) -> dict[str, Any]:
    """Calls the waking policy when a request waits and there is no instance."""
    return {
        "AlarmName": alarm_name(name),
        "AlarmDescription": f"sdfleet: a request waits at {name}, which has no instance",
        "Namespace": METRICS,
        "MetricName": "HasBacklogWithoutCapacity",
        "Dimensions": [{"Name": "EndpointName", "Value": name}],
        "Statistic": "Average",
        "Period": MINUTE,
        "EvaluationPeriods": 1,
        "DatapointsToAlarm": 1,
        "Threshold": 1,
        "ComparisonOperator": "GreaterThanOrEqualToThreshold",
        "TreatMissingData": "missing",
        "AlarmActions": [policy_arn],
    }
