"""Uploads a file in parts; what has arrived before is not sent again."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import requests

from sdfleet_cli.api import Api
from sdfleet_cli.failures import CommandError
from sdfleet_cli.parts import Parts

AT_ONCE = 4
ROUNDS = 6  # in a row in which no part arrives
PAUSE_SECONDS = 1.0
TIMEOUT = (10, 120)
POLL_SECONDS = 1.0
GO_ON = "run the same command again to go on"

Told = Callable[[int], None]  # hears how many bytes were sent; negative when they have to be sent again


class Upload:
    """The upload of one file to one checkpoint."""

    def __init__(self, api: Api, path: Path, name: str, checkpoint_type: str) -> None:
        self._api = api
        self._name = name
        self._type = checkpoint_type
        try:
            self.parts = Parts.of(path)
        except OSError as error:
            raise CommandError(f"{path} cannot be read ({error.strerror}): check the path") from None
        if self.parts.size == 0:
            raise CommandError(f"{path} is empty: there is nothing to upload")

    def begin(self, message: str, allowed: list[str] | None) -> str:
        """The id of the checkpoint: of an upload that was begun before, else of a new one."""
        before = self._unfinished()
        if before:
            return before
        body: dict[str, Any] = {
            "checkpoint_type": self._type,
            "filenames": [{"filename": self._name, "parts_number": self.parts.count}],
            "params": {"message": message},
        }
        if allowed:
            body["allowed_roles_or_users"] = allowed
        return str(self._api.call("POST", "/checkpoints", body)["checkpoint"]["id"])

    def _unfinished(self) -> str | None:
        found = self._api.call("GET", "/checkpoints", status="Initial", types=self._type)
        for checkpoint in found["checkpoints"]:
            if checkpoint["name"] == [self._name]:
                return str(checkpoint["id"])
        return None

    def send(self, checkpoint_id: str, told: Told) -> None:
        """Send what is missing, in rounds, until nothing is."""
        good: dict[int, str] = {}
        failed = 0
        while True:
            missing = self._missing(checkpoint_id, good, told)
            if not missing:
                break
            arrived = self._send_all(missing, told)
            failed = 0 if arrived else failed + 1
            if failed >= ROUNDS:
                raise CommandError(f"no part of {self._name} arrives: check the network, then {GO_ON}")
            if len(arrived) < len(missing):
                time.sleep(PAUSE_SECONDS)
            good |= arrived
        tags = [{"ETag": good[number], "PartNumber": number} for number in sorted(good)]
        body = {"status": "Active", "multi_parts_tags": {self._name: tags}}
        self._api.call("PUT", f"/checkpoints/{checkpoint_id}", body)

    def _missing(self, checkpoint_id: str, good: dict[int, str], told: Told) -> dict[int, str]:
        """A fresh URL for each part that S3 does not hold as it is in the file."""
        listed = self._api.call("GET", f"/checkpoints/{checkpoint_id}/uploads")["uploads"][0]
        if listed["parts_number"] != self.parts.count:
            raise CommandError(
                f"another file of this name is half uploaded as checkpoint {checkpoint_id}: "
                "delete that checkpoint, or choose another --name"
            )
        if listed["complete"]:  # put together already, perhaps not yet checked
            told(self.parts.size)
            good |= {number: self.parts.md5(number) for number in range(1, self.parts.count + 1)}
            return {}
        missing = {part["PartNumber"]: part["url"] for part in listed["missing"]}
        wrong = []
        for part in listed["parts"]:
            number = part["PartNumber"]
            if number in good:
                continue
            if self.parts.is_stored(number, part["Size"], part["ETag"]):
                good[number] = part["ETag"]
                told(self.parts.length(number))
            else:
                wrong.append(number)
        if wrong:
            raise CommandError(
                f"part {wrong[0]} of checkpoint {checkpoint_id} is not from this file: "
                "delete that checkpoint, or choose another --name"
            )
        return missing

    def _send_all(self, missing: dict[int, str], told: Told) -> dict[int, str]:
        """The ETags of the parts that arrived."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            sent = {number: pool.submit(self._send_one, number, url, told) for number, url in missing.items()}
            try:
                return {number: etag for number, one in sent.items() if (etag := one.result())}
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _send_one(self, number: int, url: str, told: Told) -> str | None:
        seen = 0

        def note(count: int) -> None:
            nonlocal seen
            seen += count
            told(count)

        try:
            with self.parts.open(number, note) as part:
                answer = requests.put(url, data=part, timeout=TIMEOUT)
            if answer.ok:
                return answer.headers["ETag"]
        except requests.RequestException:
            pass  # the next round has it sent again
        told(-seen)
        return None

    def wait(self, checkpoint_id: str) -> dict[str, Any]:
        """The checkpoint once it is Active; large files are verified or converted in the background."""
        while True:
            checkpoint: dict[str, Any] = self._api.call("GET", f"/checkpoints/{checkpoint_id}")["checkpoint"]
            if checkpoint["status"] != "Initial":
                return checkpoint
            if error := checkpoint["params"].get("error"):
                raise CommandError(f"{error} (checkpoint {checkpoint_id})")
            time.sleep(POLL_SECONDS)
