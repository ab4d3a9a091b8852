"""The WebUI's styles.csv, and styles in requests."""

from pathlib import Path

import pytest

from gpu_worker.config import ConfigError, ServeConfig
from gpu_worker.errors import RequestFault
from gpu_worker.limits import MAX_TEXT_LENGTH
from gpu_worker.styles import Style, Styles, style_names

FILE = """name,prompt,negative_prompt
None,,
Portrait,"portrait of {prompt}, 85mm","lowres, blurry"
good,masterpiece,
"""


def test_the_webuis_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "styles.csv"
    path.write_text("\ufeff" + FILE, encoding="utf-8")
    styles = ServeConfig.from_env({"WORKER_STYLES_FILE": str(path)}).styles
    assert styles.by_name == {
        "Portrait": Style("portrait of {prompt}, 85mm", "lowres, blurry"),
        "good": Style("masterpiece", ""),
    }


@pytest.mark.parametrize("content", [None, "", "a;b\n1;2\n"])
def test_a_file_that_is_none_stops_the_worker_with_its_name(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "styles.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=r"WORKER_STYLES_FILE .*styles.csv cannot be read"):
        ServeConfig.from_env({"WORKER_STYLES_FILE": str(path)})


def test_styles_are_put_together_as_in_the_webui() -> None:
    styles = Styles({"in": Style("a {prompt} b", ""), "after": Style(" good ", "bad")})
    assert styles.apply("cat", "", ["in", "after", "unknown"]) == ("a cat b, good", "bad")
    assert styles.apply("", "dog", ["after"]) == ("good", "dog, bad")
    assert styles.apply("cat", "dog", []) == ("cat", "dog")


def test_what_is_no_list_of_names_is_refused() -> None:
    assert style_names(None) == style_names([]) == style_names(["None", ""]) == ()
    for wrong in ("a", [1], {"a": 1}, ["a"] * 51):
        with pytest.raises(RequestFault, match="styles"):
            style_names(wrong)


def test_styles_do_not_make_a_prompt_without_end() -> None:
    doubling = Styles({"more": Style("{prompt}{prompt}", "")})
    with pytest.raises(RequestFault, match=f"more than {MAX_TEXT_LENGTH} characters"):
        doubling.apply("a" * 100, "", ["more"] * 50)
