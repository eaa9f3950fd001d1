"""The engines beside each other: overhead of a Ray cluster against processes of this machine, and
1 -> 2 workers.

    python benchmarks/engines.py [--cases 40] [--noops 2000]

Each case is the examination of a real CT (78 DICOM slices of 512x512, read, hashed and searched for
details), as ``check`` does it. Cases that do nothing give the time that an engine itself takes for
one. A time without starts is from the first finished case to the last. It needs the extra cluster,
and two free cores.

CPU seconds (user and system) are those of this process, of the workers and of Ray's own processes,
which are what another program on the machine does not change; Ray's start, once a call, is apart.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from delineate.cohorts.checks import doctor
from delineate.cohorts.discovery.layouts import find
from delineate.core import atomic
from delineate.core.inputs import json_text
from delineate.execution.executor import Engine
from delineate.execution.on_ray import _connected
from measure import DATA, keep

LINES = 200
KINDS = ("the call", "Ray's own processes")  # whose CPU seconds are measured, with the workers'
OF_RAY = ("ray::IDLE", "ray::Dashboard", "ray::RuntimeEnv")


def nothing(number: int) -> int:
    """A case that needs no work."""
    return number


def spent(process: psutil.Process) -> float:
    """CPU seconds (user and system) of a process so far."""
    with contextlib.suppress(psutil.Error):
        return float(sum(process.cpu_times()[:2]))
    return 0.0


@dataclass(frozen=True)
class Measured:
    """A function that gives its process, and the CPU seconds of this before and after a case."""

    function: Callable[[Any], Any]

    def __call__(self, item: Any) -> tuple[int, float, float]:
        begun = self._spent()
        self.function(item)
        return os.getpid(), begun, self._spent()

    def _spent(self) -> float:
        me = psutil.Process()
        return sum(map(spent, [me, *me.children(recursive=True)]))


def own_cpu_s() -> dict[str, float]:
    """CPU seconds so far of this process, and of those of Ray that do no case."""
    me = psutil.Process()
    found = dict.fromkeys(KINDS, 0.0) | {KINDS[0]: spent(me)}
    for one in me.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            words = " ".join(one.cmdline())
            if "/ray/" in words or words.startswith(OF_RAY):
                found[KINDS[1]] += spent(one)
    return found


def timed(
    engine: str, workers: int, function: Callable[[Any], Any], items: list[Any]
) -> dict[str, float]:
    """Seconds of a call, those until its first case was finished, and those of one case after it,
    over all workers.
    """
    ends: list[float] = []
    used: list[dict[str, float]] = []
    began, before = time.perf_counter(), own_cpu_s()

    def each(outcome: object) -> None:
        ends.append(time.perf_counter() - began)
        if len(ends) in (1, len(items)):
            used.append(own_cpu_s())

    outcomes = Engine.parsed(engine).run(
        Measured(function),
        items,
        names=[f"case_{number:06d}" for number in range(len(items))],
        workers=workers,
        each=each,
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
    for kind in KINDS:
        found[f"CPU of {kind}, start_s"] = used[0][kind] - before[kind]
        found[f"CPU of {kind}, a case_s"] = (used[-1][kind] - used[0][kind]) / (len(ends) - 1)
    of_cases = [outcome.value for outcome in outcomes if outcome.value is not None]
    begun: dict[int, float] = {}
    for pid, before_s, _ in of_cases:
        begun[pid] = min(before_s, begun.get(pid, before_s))
    found["CPU of workers, start_s"] = sum(begun.values())
    found["CPU of workers, a case_s"] = sum(end - start for _, start, end in of_cases) / len(ends)
    found["CPU, a case_s"] = sum(found[f"CPU of {kind}, a case_s"] for kind in (*KINDS, "workers"))
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
    # One cluster for all calls, as for a user who has one; what its start costs is apart.
    began, before = time.perf_counter(), own_cpu_s()
    with _connected(""):
        start = {"seconds": time.perf_counter() - began}
        start |= {f"CPU of {kind}_s": s - before[kind] for kind, s in own_cpu_s().items()}
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
            "start of a cluster": start,
            "a line of the journal_ms": journal_ms(),
            "ray against local, CPU a case": ray["CPU, a case_s"] / local["CPU, a case_s"],
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
