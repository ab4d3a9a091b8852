"""`python pins.py NAME WHAT…`: what an image installs (NAME.txt), the versions that may come (NAME.pins.txt).

WHAT is an extra of pyproject.toml or a package of one. Of requirements.lock only the lines that concern it
are written, so that the layer of an image is built again when those change, and not with every other line.
"""

import re
import sys
import tomllib
from pathlib import Path

ENTRY = re.compile(r"^(?P<name>[a-z0-9-]+)==.*\n(?P<comments>(?:    #.*\n)*)", re.M)


def wanted(what: str) -> list[str]:
    """The requirements of the extra, or the package itself. Raises StopIteration for an unknown name."""
    extras = tomllib.loads(Path("pyproject.toml").read_text())["project"]["optional-dependencies"]
    return extras.get(what) or [
        next(line for lines in extras.values() for line in lines if name_of(line) == what)
    ]


def name_of(requirement: str) -> str:
    """`pyjwt[crypto]` → `pyjwt`."""
    return re.split(r"[^a-z0-9-]", requirement, maxsplit=1)[0]


def closure(lock: str, roots: set[str]) -> list[str]:
    """The lock's lines of the roots and of all that is there because of them."""
    lines, parents = {}, {}
    for entry in ENTRY.finditer(lock):
        lines[entry["name"]] = entry[0].splitlines()[0]
        parents[entry["name"]] = set(re.findall(r"#\s+(?:via )?([a-z0-9-]+)", entry["comments"]))
    found, before = set(roots), 0
    while before != len(found):
        before = len(found)
        found |= {name for name, needed_by in parents.items() if needed_by & found}
    return [lines[name] for name in sorted(found & lines.keys())]


if __name__ == "__main__":
    name, *things = sys.argv[1:]
    requirements = sorted({line for what in things for line in wanted(what)})
    pins = closure(Path("requirements.lock").read_text(), {name_of(line) for line in requirements})
    Path(f"{name}.txt").write_text("\n".join(requirements) + "\n")
    Path(f"{name}.pins.txt").write_text("\n".join(pins) + "\n")
