"""Merges of checkpoints: what is asked for, checked before a worker sees it."""

from collections.abc import Mapping
from typing import Any

from services.common.errors import BadRequest, Unavailable
from services.common.identity import Caller
from services.common.times import now
from services.training.errors import Refused
from services.training.models import BASE_TYPE
from services.training.names import checkpoint_id_of
from services.training.neighbours import Neighbours, Viewer
from services.training.repository import MERGE, Work, WorkRepository
from services.training.states import Status
from services.training.trainings import ENDING, new_work

# The WebUI's words.
WEIGHTED_SUM, ADD_DIFFERENCE, NO_INTERPOLATION = METHODS = (
    "Weighted sum",
    "Add difference",
    "No interpolation",
)
NO_VAE = frozenset({"", "None", "Automatic"})


class Merging:
    """Creates merges."""

    def __init__(self, work: WorkRepository, neighbours: Neighbours) -> None:
        self._work = work
        self._neighbours = neighbours

    def start(self, caller: Caller, body: Mapping[str, Any], work_id: str) -> Work:
        """Keep a merge that waits for a worker, with the checkpoint that it is going to make."""
        viewer = Viewer.of(caller)
        names, vae = _named(body), str(body.get("bake_in_vae") or "")
        wanted = [(BASE_TYPE, name) for name in names]
        if vae not in NO_VAE:
            wanted.append(("VAE", vae))
        files = self._neighbours.resolve(viewer, dict.fromkeys(wanted))
        filename = result_name(body, names)
        recipe = {
            "interp_method": body["interp_method"],
            "multiplier": body["multiplier"],
            "primary_model_name": names[0],
            "secondary_model_name": names[1] if len(names) > 1 else "",
            "tertiary_model_name": names[2] if len(names) > 2 else "",
            "bake_in_vae": "" if vae in NO_VAE else vae,
            "save_as_half": body["save_as_half"],
        }
        # The work is there first: what a death leaves of its checkpoint is found and given up by its id.
        self._work.add(
            new_work(MERGE, viewer, work_id)
            | {
                "model_name": "merge",
                "params": recipe,
                "named": list(dict.fromkeys(wanted)),
                "files": [{"id": file["id"]} for file in files],
                "result_name": filename,
                "history": [{"status": Status.CREATED, "actor": caller.name, "at": now()}],
            }
        )
        try:
            checkpoint = self._neighbours.reserve(
                {
                    "id": checkpoint_id_of(work_id),
                    "type": BASE_TYPE,
                    "filename": filename,
                    "creator": caller.name,
                    "allowed": list(viewer.roles),
                    "params": {"message": "merged", "merge": recipe},
                }
            )
        except Refused:
            self._work.give_up_creation(work_id)
            raise
        changes = {"checkpoint_id": checkpoint["id"], "checkpoint": checkpoint, "cleaned": False}
        queued = self._work.queue(work_id, caller.name, changes)
        if queued is None:
            raise Unavailable  # this process stood still so long that its work was given up
        return queued


def _named(body: Mapping[str, Any]) -> list[str]:
    """The checkpoints that the method needs, in its order. Raises BadRequest."""
    names = [body[f"{place}_model_name"] or "" for place in ("primary", "secondary", "tertiary")]
    names = ["" if name == "None" else name for name in names]
    needed = {NO_INTERPOLATION: 1, WEIGHTED_SUM: 2, ADD_DIFFERENCE: 3}[body["interp_method"]]
    for place, name in zip(("primary", "secondary", "tertiary")[:needed], names, strict=False):
        if not name:
            raise BadRequest(
                f"{place}_model_name is missing: {body['interp_method']} needs {needed} checkpoints"
            )
    if needed == 2 and names[2]:
        raise BadRequest(f"tertiary_model_name is for {ADD_DIFFERENCE}, not {WEIGHTED_SUM}")
    return names[:needed]


def result_name(body: Mapping[str, Any], names: list[str]) -> str:
    """The file name of the merged checkpoint: the wanted one, else the WebUI's formula."""
    wanted = body.get("custom_name")
    if wanted:
        return str(wanted).removesuffix(ENDING) + ENDING
    short = [name.removesuffix(ENDING) for name in names]
    weight = round(body["multiplier"], 2)
    if body["interp_method"] == WEIGHTED_SUM:
        return f"{round(1 - weight, 2):g}({short[0]}) + {weight:g}({short[1]}){ENDING}"
    if body["interp_method"] == ADD_DIFFERENCE:
        return f"{short[0]} + {weight:g}({short[1]} - {short[2]}){ENDING}"
    return f"{short[0]}-copy{ENDING}"
