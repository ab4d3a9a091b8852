"""Writes the CLIP tokenizer's files from the vocabulary inside the open_clip_torch wheel on PyPI.

Usage: ``pip download --no-deps open_clip_torch && python gpu_worker/assets/make_tokenizer.py WHEEL``.
The vocabulary is OpenAI CLIP's ``bpe_simple_vocab_16e6.txt.gz`` (MIT licence), unchanged in that wheel.
"""

import argparse
import gzip
import json
import zipfile
from pathlib import Path

VOCABULARY_MEMBER = "open_clip/bpe_simple_vocab_16e6.txt.gz"
VOCABULARY_SIZE = 49408
MERGE_COUNT = VOCABULARY_SIZE - 2 * 256 - 2
START, END = "<|startoftext|>", "<|endoftext|>"
SPECIAL_TOKENS = {"bos_token": START, "eos_token": END, "pad_token": END, "unk_token": END}
TOKENIZER_CONFIG = {
    "tokenizer_class": "CLIPTokenizer",
    "add_prefix_space": False,
    "do_lower_case": True,
    "errors": "replace",
    "model_max_length": 77,
    **SPECIAL_TOKENS,
}


def printable_bytes() -> list[str]:
    """One printable character for each of the 256 bytes, in the order of GPT-2's ``bytes_to_unicode``."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + position) for position in range(len(hidden))]


def read_merges(wheel: Path) -> list[str]:
    """The byte-pair merges; the published file has a header line first and unused merges at its end."""
    with zipfile.ZipFile(wheel) as archive:
        lines = gzip.decompress(archive.read(VOCABULARY_MEMBER)).decode("utf-8").split("\n")
    return lines[1 : 1 + MERGE_COUNT]


def build_vocabulary(merges: list[str]) -> dict[str, int]:
    """Token to id: bytes, bytes that end a word, merges, then the two special tokens."""
    characters = printable_bytes()
    tokens = [*characters, *(character + "</w>" for character in characters)]
    tokens += ["".join(merge.split()) for merge in merges]
    tokens += [START, END]
    vocabulary = {token: position for position, token in enumerate(tokens)}
    if len(vocabulary) != VOCABULARY_SIZE:
        raise ValueError(f"the vocabulary must have {VOCABULARY_SIZE} distinct tokens, not {len(vocabulary)}")
    return vocabulary


def write_tokenizer(wheel: Path, folder: Path) -> None:
    """Writes the four files which ``CLIPTokenizer.from_pretrained(folder)`` reads."""
    merges = read_merges(wheel)
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = json.dumps(build_vocabulary(merges), ensure_ascii=False)
    (folder / "vocab.json").write_text(vocabulary + "\n", encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(TOKENIZER_CONFIG, indent=2) + "\n")
    (folder / "special_tokens_map.json").write_text(json.dumps(SPECIAL_TOKENS, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes the CLIP tokenizer's files.")
    parser.add_argument("wheel", type=Path, help="path of an open_clip_torch wheel")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "clip_tokenizer")
    arguments = parser.parse_args()
    write_tokenizer(arguments.wheel, arguments.out)


if __name__ == "__main__":
    main()
