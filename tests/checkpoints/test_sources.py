"""Links of model sites, and whom tokens are sent to."""

import pytest

from services.checkpoints.config import parse_tokens
from services.checkpoints.sources import _headers, direct_link


@pytest.mark.parametrize(
    ("link", "direct"),
    [
        ("https://huggingface.co/a/b/blob/main/c.safetensors", "https://huggingface.co/a/b/resolve/main/c.safetensors"),
        ("https://huggingface.co/a/b/resolve/main/c.safetensors?download=true",) * 2,
        ("https://civitai.com/models/12/name?modelVersionId=34", "https://civitai.com/api/download/models/34"),
        ("https://civitai.com/api/download/models/34?type=Model",) * 2,
        ("https://example.org/blob/a.safetensors",) * 2,
    ],
)  # fmt: skip
def test_links_as_people_copy_them_lead_to_the_file(link: str, direct: str) -> None:
    assert direct_link(link) == direct


def test_a_token_is_sent_to_its_host_over_https_alone() -> None:
    tokens = dict(parse_tokens("huggingface.co=hf_secret, www.civitai.com=abc"))
    assert _headers("https://huggingface.co/x", tokens, 0, None)["Authorization"] == "Bearer hf_secret"
    assert _headers("https://civitai.com/x", tokens, 0, None)["Authorization"] == "Bearer abc"
    for other in (
        "http://huggingface.co/x",
        "https://cdn.huggingface.co/x",
        "https://huggingface.co.evil.org/",
    ):
        assert "Authorization" not in _headers(other, tokens, 0, None)


@pytest.mark.parametrize("text", ["civitai.com", "=abc", "civitai.com="])
def test_tokens_without_host_or_value_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="host=token"):
        parse_tokens(text)
