"""The GPU worker of sdfleet: it claims image jobs, runs them with diffusers and reports what it does."""

import os

VERSION = "0.1.0"

# The hub libraries read these once, when they are first imported: nothing in the worker may ask the internet.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
