"""`python wanted.py EXTRA…`: prints what these extras ask for; images install it before any code."""

import sys
import tomllib
from pathlib import Path

extras = tomllib.loads(Path("pyproject.toml").read_text())["project"]["optional-dependencies"]
print("\n".join(sorted({package for extra in sys.argv[1:] for package in extras[extra]})))  # noqa: T201
