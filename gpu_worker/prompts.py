"""What of the WebUI's prompt syntax is refused or only reported, until it is honoured."""

import re

from gpu_worker.errors import RequestFault
from gpu_worker.loading import tokenizer

NETWORK = re.compile(r"<(lora|lyco|hypernet):([^:>]{1,100})", re.IGNORECASE)
ATTENTION = re.compile(r"\([^()]*:\s*[\d.]+\s*\)|\[[^\[\]]+\]|\bBREAK\b|\bAND\b")
MAX_TOKENS = 75


def refuse_networks(*prompts: str) -> None:
    """Fails for ``<lora:…>`` and ``<hypernet:…>``: without them it would be another picture."""
    for prompt in prompts:
        if match := NETWORK.search(prompt):
            raise RequestFault(f"<{match[1]}:{match[2]}> in the prompt is not supported by this worker yet")


def prompt_warnings(*prompts: str) -> list[str]:
    """Sentences about what in the prompts had no effect."""
    warnings = []
    for name, prompt in zip(("prompt", "negative_prompt"), prompts, strict=False):
        tokens = len(tokenizer()(prompt, add_special_tokens=False).input_ids)
        if tokens > MAX_TOKENS:
            warnings.append(f"{name} has {tokens} tokens; those after the first {MAX_TOKENS} had no effect")
        if ATTENTION.search(prompt):
            warnings.append(f"{name} uses prompt syntax that is not honoured yet and was read as plain words")
    return warnings
