"""What the users service counts for Prometheus beside its requests."""

from prometheus_client import Counter

STATUSES = (200, 401, 403, 503)

AUTHENTICATIONS = Counter(
    "sdfleet_authentications",
    "The gateway's questions, by the status of the answer and whether it was remembered",
    ["status", "remembered"],
)
# Looked up once: this is counted for every request of every client.
JUDGED = {status: AUTHENTICATIONS.labels(status, "no") for status in STATUSES}
REMEMBERED = {status: AUTHENTICATIONS.labels(status, "yes") for status in STATUSES}
