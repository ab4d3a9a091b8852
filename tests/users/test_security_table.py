"""docs/security.md names tests; all of them exist."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_test_that_the_security_table_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "security.md").read_text()))
    sources = [*(ROOT / "tests" / "users").glob("*.py"), *(ROOT / "tests" / "gateway").glob("*.py")]
    written = set(
        re.findall(r"^def (test_\w+)", "\n".join(path.read_text() for path in sources), re.MULTILINE)
    )
    assert len(named) > 60
    assert named - written == set()
