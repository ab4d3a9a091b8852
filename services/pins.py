"""`python pins.py WHAT`: what an image installs (WHAT.txt) and the versions that may come with it (WHAT.pins.txt).

WHAT is an extra of pyproject.toml or a package. Of requirements.lock only the lines that concern WHAT are
written, so that the layer of an image is built again when those change, and not with every other line.
"""

import re
import sys
import tomllib
from pathlib import Path

ENTRY = re.compile(r"^(?P<name>[a-z0-9-]+)==.*\n(?P<comments>(?:    #.*\n)*)", re.M)


def wanted(what: str) -> list[str]:
    """The requirements of the extra, or the package itself."""
    extras = tomllib.loads(Path("pyproject.toml").read_text())["project"]["optional-dependencies"]
    return extras.get(what) or [line for line in extras["worker"] if name_of(line) == what]


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
    what = sys.argv[1]
    requirements = wanted(what)
    pins = closure(Path("requirements.lock").read_text(), {name_of(line) for line in requirements})
    Path(f"{what}.txt").write_text("\n".join(requirements) + "\n")
    Path(f"{what}.pins.txt").write_text("\n".join(pins) + "\n")
