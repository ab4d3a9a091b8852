"""What somebody else's call of each route must come to: one row for every route of every service.

A route without a row fails the test: add one here. `NOT_THERE` is for ids in paths, `UNSEEN` for lists,
`IGNORED` for bodies that name what is not the caller's, `REFUSED` for what takes a right over others.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.isolation.world import World

NOT_THERE, UNSEEN, IGNORED, REFUSED = (404,), (200,), (200, 204), (400, 403, 404)


@dataclass(frozen=True)
class Row:
    """A call of the stranger's that names what is the owner's."""

    answers: tuple[int, ...]
    path: str | None = None  # what stands for the rule's only parameter, by its name among what is owned
    body: Callable[[World], Any] = lambda _: None
    query: Callable[[World], dict[str, str]] = lambda _: {}


@dataclass(frozen=True)
class Own:
    """A route that can name nothing of others; why."""

    because: str


def _named(field: str, *things: str) -> Callable[[World], Any]:
    return lambda world: {field: [world.owned[thing] for thing in things]}


def _role(world: World) -> dict[str, Any]:
    return {"role_name": world.owned["role"], "permissions": ["user:list"], "creator": "x"}


def _user(world: World) -> dict[str, Any]:
    name = world.owned["user"]
    return {"username": name, "password": "another-password", "roles": [world.owned["role"]], "creator": "x"}


USERS = {
    "GET /ping": Own("it says pong"),
    "POST /auth/token": Own("whoever knows the password is that user"),
    "POST /auth/revoke": Own("the presented token is what it ends"),
    "GET /roles": Row(UNSEEN),
    "POST /roles": Row(REFUSED, body=_role),
    "DELETE /roles": Row((*IGNORED, *REFUSED), body=_named("role_name_list", "role", "owners role")),
    "GET /users": Row(UNSEEN),
    "POST /users": Row(REFUSED, body=_user),
    "DELETE /users": Row((*IGNORED, *REFUSED), body=_named("user_name_list", "user", "user made")),
    "PUT /users/me/password": Own("the old password is asked for, of nobody but the caller"),
    "GET /users/me/api-keys": Row(UNSEEN),
    "POST /users/me/api-keys": Own("it makes a key of the caller's"),
    "DELETE /users/me/api-keys": Row((*IGNORED, *REFUSED), body=_named("api_key_id_list", "key")),
    "GET /api-keys": Row((403,)),
    "POST /api-keys": Row((403,), body=lambda world: {"name": "k", "username": world.owned["user"]}),
    "DELETE /api-keys": Row((403,), body=_named("api_key_id_list", "key")),
    "GET /audit": Row((403,)),
}
CHECKPOINTS = {
    "POST /checkpoints": Row(
        REFUSED,
        body=lambda world: {
            "checkpoint_type": "Lora",
            "filenames": [{"filename": "owned-lora.safetensors", "parts_number": 1}],
            "params": {"creator": world.owned["user"]},
        },
    ),
    "GET /checkpoints": Row(UNSEEN),
    "GET /checkpoints/<checkpoint_id>": Row(NOT_THERE, "checkpoint"),
    "GET /checkpoints/<checkpoint_id>/uploads": Row(NOT_THERE, "checkpoint"),
    "PUT /checkpoints/<checkpoint_id>": Row(NOT_THERE, "checkpoint", lambda _: {"status": "Disabled"}),
    "PUT /checkpoints": Row(
        NOT_THERE, body=lambda world: {"checkpoint_id": world.owned["checkpoint"], "status": "Disabled"}
    ),
    "DELETE /checkpoints": Row(IGNORED, body=_named("checkpoint_id_list", "checkpoint")),
}
ENDPOINTS = {
    "POST /endpoints": Row(
        REFUSED,
        body=lambda world: {
            "endpoint_name": "other",
            "endpoint_type": "Async",
            "instance_type": "local.cpu",
            "initial_instance_count": 1,
            "autoscaling_enabled": False,
            "assign_to_roles": [world.owned["owners role"]],
            "creator": world.owned["user"],
        },
    ),
    "GET /endpoints": Row(UNSEEN),
    "GET /endpoints/<name>": Row(NOT_THERE, "endpoint"),
    "GET /endpoints/<name>/instances": Row(NOT_THERE, "endpoint"),
    "DELETE /endpoints": Row(
        (*IGNORED, *REFUSED),
        body=lambda world: {
            "delete_endpoint_list": [world.owned["endpoint"], world.owned["endpoint id"]],
            "username": world.stranger.username,
        },
    ),
}
INFERENCE = {
    "POST /inferences": Row(
        REFUSED,
        body=lambda world: {
            "user_id": world.owned["user"],
            "inference_type": "Async",
            "task_type": "rembg",
            "models": {"Lora": ["owned-lora.safetensors"]},
            "sagemaker_endpoint_name": world.owned["endpoint"],
        },
    ),
    "GET /inferences": Row(UNSEEN),
    "GET /inferences/<job_id>": Row(NOT_THERE, "waiting job"),
    "GET /inferences/<job_id>/events": Row(NOT_THERE, "waiting job"),
    "GET /inferences/<job_id>/deliveries": Row(NOT_THERE, "waiting job"),
    "PUT /inferences/<job_id>/start": Row(NOT_THERE, "job"),
    "PUT /inferences/<job_id>/cancel": Row(NOT_THERE, "waiting job"),
    "DELETE /inferences": Row(IGNORED, body=_named("inference_id_list", "job", "waiting job")),
    "POST /webhooks": Own("it makes a webhook of the caller's"),
    "GET /webhooks": Row(UNSEEN),
    "GET /webhooks/<webhook_id>": Row(NOT_THERE, "webhook"),
    "GET /webhooks/<webhook_id>/deliveries": Row(NOT_THERE, "webhook"),
    "PUT /webhooks/<webhook_id>": Row(NOT_THERE, "webhook", lambda _: {"active": False}),
    "DELETE /webhooks": Row(IGNORED, body=_named("webhook_id_list", "webhook")),
    **{
        f"GET /{begin}/get-{kind}-list": Row(UNSEEN)
        for begin in ("inference", "inferences")
        for kind in ("texual-inversion", "lora", "hypernetwork", "controlnet-model")
    },
    **{
        f"GET /{begin}/generate-s3-presigned-url-for-uploading": Row(
            REFUSED, query=lambda world: {"key": f"config/{world.owned['user']}/aigc.json"}
        )
        for begin in ("inference", "inferences")
    },
}
DATASETS = {
    "POST /datasets": Row(
        REFUSED, body=lambda _: {"dataset_name": "owned-set", "content": [{"filename": "owned.png"}]}
    ),
    "GET /datasets": Row(UNSEEN),
    "GET /datasets/<name>": Row(NOT_THERE, "dataset"),
    "GET /datasets/<name>/data": Row(NOT_THERE, "dataset"),
    "PUT /datasets/<name>": Row(NOT_THERE, "dataset", lambda _: {"status": "Enabled"}),
    "PUT /datasets": Row(NOT_THERE, body=lambda _: {"dataset_name": "owned-set", "status": "Enabled"}),
    "DELETE /datasets": Row(IGNORED, body=_named("dataset_name_list", "dataset")),
    "POST /datasets/<name>/items": Row(NOT_THERE, "dataset", lambda _: {"content": [{"filename": "x.png"}]}),
    "PUT /datasets/<name>/items": Row(NOT_THERE, "dataset", lambda _: {"captions": {"owned.png": "x"}}),
    "DELETE /datasets/<name>/items": Row(NOT_THERE, "dataset", lambda _: {"filename_list": ["owned.png"]}),
    "POST /datasets/<name>/crop": Row(NOT_THERE, "dataset", lambda _: {"width": 256, "height": 256}),
}
TRAINING = {
    "POST /models": Row(
        REFUSED,
        body=lambda world: {
            "model_type": "Stable-diffusion",
            "name": "theirs",
            "checkpoint_id": world.owned["checkpoint"],
        },
    ),
    "GET /models": Row(UNSEEN),
    "PUT /models/<model_id>": Row(NOT_THERE, "model", lambda _: {"multi_parts_tags": {}}),
    "PUT /models": Row(NOT_THERE, body=lambda world: {"model_id": world.owned["model"]}),
    "DELETE /models": Row(IGNORED, body=_named("model_id_list", "model")),
    "POST /trainings": Row(
        REFUSED,
        body=lambda world: {
            "train_type": "Stable-diffusion",
            "model_id": world.owned["model"],
            "params": {"training_params": {"dataset": "owned-set"}},
        },
    ),
    "GET /trainings": Row(UNSEEN),
    "GET /trainings/<training_id>": Row(NOT_THERE, "training"),
    "PUT /trainings/<training_id>": Row(NOT_THERE, "training", lambda _: {"status": "Training"}),
    "PUT /trainings/<training_id>/start": Row(NOT_THERE, "training"),
    "PUT /trainings/<training_id>/stop": Row(NOT_THERE, "training"),
    "PUT /trainings": Row(
        NOT_THERE, body=lambda world: {"train_job_id": world.owned["training"], "status": "Training"}
    ),
    "DELETE /trainings": Row(IGNORED, body=_named("training_id_list", "training")),
    "POST /inference/run-model-merge": Row(
        REFUSED,
        body=lambda _: {
            "primary_model_name": "owned-model.safetensors",
            "secondary_model_name": "owned-model.safetensors",
        },
    ),
}
ROWS: dict[str, dict[str, Row | Own]] = {
    "users": USERS,
    "checkpoints": CHECKPOINTS,
    "endpoints": ENDPOINTS,
    "inference": INFERENCE,
    "datasets": DATASETS,
    "training": TRAINING,
}
