"""The parts of the inference service, wired once per process."""

from dataclasses import dataclass

from services.common.bells import Bells
from services.common.events import JobEvents
from services.common.mongo import Documents, open_database
from services.common.queues import make_celery
from services.common.s3 import ObjectStore
from services.common.service_client import ServiceClient
from services.inference import migrations
from services.inference.announcing import Announcing
from services.inference.attempts_repository import Attempts
from services.inference.config import Config
from services.inference.creation import JobCreation
from services.inference.deletion import EndpointEnd, JobDeletion
from services.inference.deployments import Deployments
from services.inference.fairness import FairShare
from services.inference.lifetimes import Lifetimes
from services.inference.line_repository import Line
from services.inference.pace import Pace
from services.inference.parts import Parts
from services.inference.previews import Previews
from services.inference.quotas_repository import Quotas
from services.inference.repository import Jobs
from services.inference.running import JobRunning
from services.inference.sagemaker import wiring as sagemaker_wiring
from services.inference.sagemaker.wiring import SageMaker
from services.inference.sending import Sender
from services.inference.starting import JobStart
from services.inference.storage import JobStorage
from services.inference.streams import StreamLimits, Streams
from services.inference.waiting import Instances, Waiting
from services.inference.webhook_records import DeliveryRecords, WebhookRecords
from services.inference.webhooks import Webhooks


@dataclass(frozen=True)
class Context(Parts):
    """What routes and tasks work with."""

    config: Config
    database: Documents
    store: ObjectStore
    creation: JobCreation
    start: JobStart
    running: JobRunning
    previews: Previews
    deletion: JobDeletion
    lifetimes: Lifetimes
    checkpoints: ServiceClient
    streams: Streams
    webhook_records: WebhookRecords
    deliveries: DeliveryRecords
    webhooks: Webhooks
    announcing: Announcing
    endpoint_end: EndpointEnd
    deployments: Deployments
    sagemaker: SageMaker
    waiting: Waiting

    def prepare(self) -> None:
        """Make what the service stands on: indexes and the bucket; all of it may be there already."""
        migrations.prepare(self.database)
        self.store.ensure_bucket()


def open_context(config: Config) -> Context:
    """Wire the parts; connections are made when they are first used."""
    database = open_database(config.mongo, "inference")
    store = ObjectStore(config.s3)
    parts = Parts(
        jobs=Jobs(database),
        line=Line(database),
        attempts=Attempts(database),
        shares=FairShare(database),
        pace=Pace(database),
        quotas=Quotas(database),
        storage=JobStorage(store),
        bells=Bells(make_celery("inference-bells", broker_url=config.redis_url)),
        events=JobEvents(config.redis_url),
    )
    secret = config.internal.service_secret
    users, checkpoints, endpoints = (
        ServiceClient("inference", url, secret)
        for url in (config.internal.users_url, config.checkpoints_url, config.endpoints_url)
    )
    webhook_records, deliveries = WebhookRecords(database), DeliveryRecords(database)
    webhooks = Webhooks(webhook_records)
    announcing = Announcing(
        parts.jobs,
        webhook_records,
        deliveries,
        Sender(config.webhooks_allow),
        config.webhook_retry_seconds,
        config.webhook_attempts,
    )
    limits = StreamLimits(config.event_streams, config.event_streams_per_user, config.event_stream_seconds)
    running = JobRunning(parts, config.lease_seconds, config.max_attempts, config.limits.limits_running)
    deletion = JobDeletion(parts, config.lease_seconds)
    return Context(
        **vars(parts),
        config=config,
        database=database,
        store=store,
        creation=JobCreation(parts, config.limits, users, checkpoints, endpoints, webhooks),
        start=JobStart(parts, config.limits, config.realtime_wait_seconds),
        running=running,
        previews=Previews(parts, config.lease_seconds),
        deletion=deletion,
        lifetimes=Lifetimes(parts.jobs, deletion, config.results_days, config.unstarted_days),
        checkpoints=checkpoints,
        streams=Streams(config.redis_url, parts.jobs.standings, limits),
        webhook_records=webhook_records,
        deliveries=deliveries,
        webhooks=webhooks,
        announcing=announcing,
        endpoint_end=EndpointEnd(parts, endpoints),
        deployments=Deployments(endpoints),
        sagemaker=sagemaker_wiring.wire(parts, running, database, store, endpoints, config.sagemaker),
        waiting=Waiting(parts.line, parts.pace, Instances(endpoints)),
    )
