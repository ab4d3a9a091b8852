"""What whoever does the work is given: the checkpoints and pictures as they are now, and where they lie."""

from collections.abc import Callable, Mapping
from typing import Any

from services.common.errors import ApiError, Unavailable
from services.training.errors import NotYet, Replaced
from services.training.finishing import Finishing
from services.training.neighbours import Neighbours, Viewer
from services.training.repository import TRAINING, Work, WorkRepository

NOT_YET_SECONDS = 1.0

Address = Callable[[str], str]  # of the object with this key


class Preparation:
    """Looks everything up on behalf of the user whose work it is."""

    def __init__(
        self, work: WorkRepository, neighbours: Neighbours, finishing: Finishing, lease_seconds: int
    ) -> None:
        self._work = work
        self._neighbours = neighbours
        self._finishing = finishing
        self._lease_seconds = lease_seconds

    def prepare(self, work: Work, address: Address) -> dict[str, Any] | None:
        """`files` and `concepts`; None when the work has to wait, or cannot be done and has failed now."""
        viewer = Viewer.kept(work["viewer"])
        try:
            if work["kind"] == TRAINING:
                wanted = [(work["base"]["type"], work["base"]["name"])]
                concepts = [self._concept(viewer, concept, address) for concept in work["concepts"]]
            else:
                wanted, concepts = [(kind, name) for kind, name in work["named"]], []
            files = self._neighbours.resolve(viewer, wanted)
            _require_the_same(work, files)
        except NotYet:
            self._work.postpone(work["_id"], NOT_YET_SECONDS, "the verification of its data set")
            return None
        except Unavailable:
            raise
        except ApiError as reason:
            expected = {"_id": work["_id"], "status": work["status"], "attempt": work["attempt"]}
            failed = self._work.fail(expected, "training", reason.message)
            if failed is not None:
                self._finishing.clean(failed)
            return None
        return {"concepts": concepts, "files": [_file(file, address) for file in files]}

    def document(self, work: Work, prepared: Mapping[str, Any], address: Address) -> dict[str, Any]:
        """The `Work` of docs/internals.md."""
        state = work["state"]
        return {
            "id": work["_id"],
            "attempt": work["attempt"],
            "lease_seconds": self._lease_seconds,
            "kind": work["kind"],
            "request_id": work.get("request_id") or "",
            "result_name": work["result_name"],
            "use_lora": work.get("use_lora", False),
            "params": work["params"],
            "state": state and {"step": state["step"], "url": address(state["key"])},
            **prepared,
        }

    def _concept(self, viewer: Viewer, concept: Mapping[str, Any], address: Address) -> dict[str, Any]:
        others = concept["class_dataset"]
        return {
            "prompt": concept["prompt"],
            "class_prompt": concept["class_prompt"],
            "class_count": concept["class_pictures"],
            "repeats": concept["repeats"],
            "pictures": self._pictures(viewer, concept["dataset"], address),
            "class_pictures": self._pictures(viewer, others, address) if others else [],
        }

    def _pictures(self, viewer: Viewer, name: str, address: Address) -> list[dict[str, Any]]:
        return [
            {
                "name": one["filename"],
                "caption": one["caption"] or "",
                "size": one["size"],
                "url": address(one["key"]),
            }
            for one in self._neighbours.pictures(viewer, name)
        ]


def _require_the_same(work: Work, files: list[dict[str, Any]]) -> None:
    """Another checkpoint may have got the name since; what was learned on the first does not fit it."""
    for promised, file in zip(work["files"], files, strict=True):
        if promised["id"] != file["id"]:
            raise Replaced(file["name"])


def _file(file: Mapping[str, Any], address: Address) -> dict[str, Any]:
    kept = {name: file[name] for name in ("type", "name", "id", "size", "etag", "sha256")}
    return kept | {"url": address(file["key"])}
