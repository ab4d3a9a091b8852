"""Loaded by schemathesis (SCHEMATHESIS_HOOKS)."""

import os

from tests.fuzz.identity import URL, install

install(os.environ[URL])
