"""The engines beside each other: overhead of a Ray cluster against processes of this machine, and
1 -> 2 workers.

    python benchmarks/engines.py [--cases 40] [--noops 2000]

Each case is the examination of a real CT (78 DICOM slices of 512x512, read, hashed and searched for
details), as ``check`` does it. Cases that do nothing give the time that an engine itself takes for
one. A time without starts is from the first finished case to the last. It needs the extra cluster,
and two free cores.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from delineate.cohorts.checks import doctor
from delineate.cohorts.discovery.layouts import find
from delineate.core import atomic
from delineate.core.inputs import json_text
from delineate.execution.executor import Engine
from delineate.execution.on_ray import _connected
from measure import DATA, keep

LINES = 200


def nothing(number: int) -> int:
    """A case that needs no work."""
    return number


def timed(
    engine: str, workers: int, function: Callable[[Any], Any], items: list[Any]
) -> dict[str, float]:
    """Seconds of a call, those until its first case was finished, and those of one case after it,
    over all workers.
    """
    ends: list[float] = []
    began = time.perf_counter()
    outcomes = Engine.parsed(engine).run(
        function,
        items,
        names=[f"case_{number:06d}" for number in range(len(items))],
        workers=workers,
        each=lambda outcome: ends.append(time.perf_counter() - began),
    )
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error
    found = {
        "seconds": ends[-1],
        "until the first case_s": ends[0],
        "a case_s": (ends[-1] - ends[0]) / (len(ends) - 1),
        "in workers, a case_s": sum(o.seconds for o in outcomes) / len(outcomes),
    }
    print(engine, workers, {name: round(value, 4) for name, value in found.items()}, flush=True)
    return found


def journal_ms() -> float:
    """One line of the journal, on the disk when it returns."""
    with tempfile.TemporaryDirectory() as folder:
        path, line = Path(folder) / "lines.jsonl", json_text({"case": "x" * 500})
        atomic.append_line(path, line)
        began = time.perf_counter()
        for _ in range(LINES):
            atomic.append_line(path, line)
        return 1e3 * (time.perf_counter() - began) / LINES


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=40)
    parser.add_argument("--noops", type=int, default=2000)
    given = parser.parse_args()
    # One thread a worker, so that two workers have two cores.
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *_paths()])
    manifest = find(DATA / "chaos_ct")
    case = manifest.cases[0]
    jobs = [(case, manifest)] * given.cases
    numbers = list(range(given.noops))
    found = {
        f"local, {workers}": timed("local", workers, doctor.examine, jobs) for workers in (1, 2)
    }
    idle = {"local, 2": timed("local", 2, nothing, numbers)}
    # One cluster for all calls, as for a user who has one.
    with _connected(""):
        found |= {
            f"ray, {workers}": timed("ray", workers, doctor.examine, jobs) for workers in (1, 2)
        }
        idle["ray, 2"] = timed("ray", 2, nothing, numbers)
    local, ray = (found[f"{engine}, 2"] for engine in ("local", "ray"))
    keep(
        "engines",
        {
            "case": "chaos_ct: 78 DICOM slices of 512x512, examined",
            "cases": given.cases,
            "cases without work": given.noops,
            "calls": found,
            "calls without work": idle,
            "a line of the journal_ms": journal_ms(),
            "ray against local, without starts": ray["a case_s"] / local["a case_s"],
            "ray against local, in all": ray["seconds"] / local["seconds"],
            "1 to 2 workers, local": found["local, 1"]["a case_s"] / local["a case_s"],
            "1 to 2 workers, ray": found["ray, 1"]["a case_s"] / ray["a case_s"],
        },
    )


def _paths() -> list[str]:
    return [path for path in [os.environ.get("PYTHONPATH", "")] if path]


if __name__ == "__main__":
    main()
