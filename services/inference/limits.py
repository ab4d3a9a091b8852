"""What users may ask for: the deployment's limits by role and user, and how they are found for somebody."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any

from services.inference.errors import ParametersRefused, PriorityRefused
from services.inference.parameters import Summary
from services.inference.scheduling import HIGHEST_PRIORITY, LOWEST_PRIORITY

SIZE = re.compile(r"(\d{1,5})x(\d{1,5})")
LARGEST_LIMIT = 10_000_000


@dataclass(frozen=True)
class Limits:
    """One user's limits; None is no limit."""

    waiting: int | None = None
    running: int | None = None
    images_per_day: int | None = None
    pixels: int | None = None
    steps: int | None = None
    priority: int = 0

    def check(self, summary: Summary) -> None:
        """Raises ParametersRefused for what can never be done for this user, however long they wait."""
        pixels = summary.width * summary.height
        if self.pixels is not None and pixels > self.pixels:
            raise ParametersRefused(
                f"width {summary.width} times height {summary.height} makes {pixels} pixels: your roles "
                f"allow at most {self.pixels}"
            )
        if self.steps is not None and summary.steps > self.steps:
            raise ParametersRefused(f"steps must be at most {self.steps} for your roles, not {summary.steps}")

    def check_priority(self, priority: int) -> None:
        """Raises PriorityRefused when it is higher than this user may give."""
        if priority > self.priority:
            raise PriorityRefused(priority, self.priority)


Entry = dict[str, int | None]


@dataclass(frozen=True)
class LimitTable:
    """The setting INFERENCE_LIMITS: `default`, `roles` and `users`, each with limits by name."""

    default: Entry = field(default_factory=dict)
    roles: dict[str, Entry] = field(default_factory=dict)
    users: dict[str, Entry] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> "LimitTable":
        """Read the JSON text. Raises ValueError that names what is wrong."""
        try:
            table = json.loads(text)
        except ValueError:
            raise ValueError("it is no JSON") from None
        if not isinstance(table, dict) or set(table) - {"default", "roles", "users"}:
            raise ValueError('it must be an object with "default", "roles" and "users"')
        roles, users = (_entries(group, table.get(group, {})) for group in ("roles", "users"))
        return cls(_entry("default", table.get("default", {})), roles, users)

    def of(self, user: str, roles: Iterable[str]) -> Limits:
        """The most generous of what the user's roles are given; what stands at the user goes before it."""
        entries = [self.default | self.roles[role] for role in roles if role in self.roles] or [self.default]
        own = self.users.get(user, {})
        values: dict[str, Any] = {}
        for limit in fields(Limits):
            given: list[Any] = [entry.get(limit.name, limit.default) for entry in entries]
            values[limit.name] = own.get(limit.name, None if None in given else max(given))
        return Limits(**values)

    @property
    def limits_running(self) -> bool:
        """Whether anybody's running jobs are limited."""
        entries = [self.default, *self.roles.values(), *self.users.values()]
        return any(entry.get("running") is not None for entry in entries)


NO_LIMITS = LimitTable()


def _entries(group: str, given: Any) -> dict[str, Entry]:
    if not isinstance(given, dict):
        raise ValueError(f"{group} must be an object of names")
    return {name: _entry(f"{group}.{name}", entry) for name, entry in given.items()}


def _entry(where: str, given: Any) -> Entry:
    known = {limit.name for limit in fields(Limits)} - {"pixels"} | {"size"}
    if not isinstance(given, dict) or set(given) - known:
        raise ValueError(f"{where} must be an object with some of {', '.join(sorted(known))}")
    entry: Entry = {}
    for name, value in given.items():
        if name == "size":
            entry["pixels"] = None if value is None else _pixels(where, value)
            continue
        least, most = (LOWEST_PRIORITY, HIGHEST_PRIORITY) if name == "priority" else (1, LARGEST_LIMIT)
        if value is None and name == "priority":
            value = HIGHEST_PRIORITY
        if value is not None and (type(value) is not int or not least <= value <= most):
            raise ValueError(f"{where}.{name} must be null or a whole number between {least} and {most}")
        entry[name] = value
    return entry


def _pixels(where: str, size: Any) -> int:
    found = SIZE.fullmatch(size) if isinstance(size, str) else None
    if found is None:
        raise ValueError(f'{where}.size must be null or a text as "1024x1024"')
    return int(found[1]) * int(found[2])
