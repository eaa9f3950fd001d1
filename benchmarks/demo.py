"""The demo on a machine that is idle, and on one that is busy: its verdict and its minutes.

    python benchmarks/demo.py [--busy 0,1] [--runs 3]

Runs are added to those that were kept before. Busy processes compute without an end while a demo
runs. On two cores, one of them costs each thread of a training a half of its time, and the threads
of a step wait for each other.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from delineate.core.inputs import read_json_if_any
from measure import keep, timed

RECORD = Path(__file__).parent / "results" / "demo.json"
DELINEATE = (sys.executable, "-m", "delineate.cli")


@contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes that compute meanwhile."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for one in processes:
            one.kill()
            one.wait()


def demo(count: int) -> dict[str, Any]:
    """Minutes and verdict of a demo next to so many busy processes, from nothing."""
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder, busy(count):
        out = Path(folder) / "demo"
        # Compiled code of earlier runs is not used.
        cold = {"XDG_CACHE_HOME": folder, "NUMBA_CACHE_DIR": f"{folder}/numba"}
        taken = timed([*DELINEATE, "demo", "--out", out], cold, allowed=(0, 3))
        card = json.loads((out / "phantom.model.run" / "card.json").read_text())
    return {
        "level": card["verdict"]["level"],
        "words": card["verdict"]["words"],
        "minutes": round(taken / 60, 2),
        "load_before": round(load, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--busy", type=lambda text: [int(n) for n in text.split(",")], default=[0, 1]
    )
    parser.add_argument("--runs", type=int, default=3)
    a = parser.parse_args()
    found = (read_json_if_any(RECORD) or {}).get("runs", {})
    for count in a.busy:
        for _ in range(a.runs):
            found.setdefault(f"{count} busy", []).append(demo(count))
            keep("demo", {"runs": found})


if __name__ == "__main__":
    main()
