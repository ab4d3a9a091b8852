"""docs/training.md has a row for every setting, with its names and its default."""

import re
from pathlib import Path

from gpu_worker.training.names import NAMES
from gpu_worker.training.settings import NO_EFFECT, READ_BEFORE, Settings

TEXT = Path("docs/training.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in TEXT.partition("### Settings")[2].partition("## While it runs")[0].splitlines()
    if line.startswith("| `")
]


def test_every_name_stands_in_the_row_of_its_setting_and_nothing_else_does() -> None:
    documented = {}
    for names, others, _, _ in ROWS:
        settings = {NAMES[name][0] for name in re.findall(r"`(\w+)`", names + others)}
        assert len(settings) == 1, names
        documented |= dict.fromkeys(re.findall(r"`(\w+)`", names + others), settings.pop())
    wanted = {
        name: setting for name, (setting, _) in NAMES.items() if setting not in {READ_BEFORE, NO_EFFECT}
    }
    assert documented == wanted


def test_defaults_are_the_codes() -> None:
    for names, _, default, _ in ROWS:
        value = getattr(Settings(), NAMES[re.findall(r"`(\w+)`", names)[0]][0])
        shown = "" if value in (None, "", ()) else f"{value:g}" if isinstance(value, float) else str(value)
        assert default == (shown.lower() if isinstance(value, bool) else shown), names


def test_what_the_training_service_reads_is_documented() -> None:
    for name, (setting, _) in NAMES.items():
        if setting == READ_BEFORE and name != "num_class_images_per":
            assert f"`{name}`" in TEXT or f"`{name}[]`" in TEXT, name
