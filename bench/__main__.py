"""Runs benchmarks; each prints one JSON object on a line: name, figures, machine."""

import argparse
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

from bench import autoscaling, engine, gateway, inference, jobs, merge_memory, transfer, users
from stack.failures import StackError

BENCHMARKS = {
    "jobs": jobs.run,
    "transfer": transfer.run,
    "gateway": gateway.run,
    "inference": inference.run,
    "users": users.run,
    "autoscaling": autoscaling.run,
    "engine": engine.run,
    "merge_memory": merge_memory.run,
}


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    cpu = next(
        (line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    memory = next(
        (int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0
    )
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(memory / 2**20, 1),
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
    }


def _lines(path: str) -> list[str]:
    file = Path(path)
    return file.read_text().splitlines() if file.exists() else []


def main() -> int:
    """Run the benchmarks that are asked for; 1 when one fails."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "only", nargs="*", metavar="NAME", help=f"which: {', '.join(BENCHMARKS)} (default: all)"
    )
    names = parser.parse_args().only or list(BENCHMARKS)
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    where = machine()
    for name in names:
        try:
            figures = BENCHMARKS[name]()
        except StackError as error:
            print(f"benchmark {name} failed: {error}", file=sys.stderr)
            return 1
        print(json.dumps({"name": name, "figures": figures, "machine": where}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
