"""The services: one folder each, and what they share in `common`."""

import os
import tempfile
from pathlib import Path

# prometheus_client decides when it is imported how values are kept. Where a service shows its metrics, its
# processes (gunicorn's workers, Celery's children) share files in a folder; elsewhere values stay in memory.
if os.environ.get("METRICS_LISTEN"):
    if not os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="sdfleet-metrics-")
    Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]).mkdir(parents=True, exist_ok=True)
