"""docs/security.md names tests; all of them exist."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("users", "gateway", "fuzz", "api", "common")


def test_every_test_that_the_security_table_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "security.md").read_text()))
    sources = [path for folder in FOLDERS for path in (ROOT / "tests" / folder).glob("*.py")]
    written = set(
        re.findall(r"^def (test_\w+)", "\n".join(path.read_text() for path in sources), re.MULTILINE)
    )
    assert len(named) > 80
    assert named - written == set()


def test_every_row_of_the_table_names_a_test() -> None:
    table = (ROOT / "docs" / "security.md").read_text().partition("| attack | test |\n|---|---|\n")[2]
    rows = table.partition("\n\n")[0].strip().splitlines()
    assert len(rows) > 40
    assert [row for row in rows if "`test_" not in row] == []
