"""The engines beside each other: overhead of a Ray cluster against processes of this machine, and
1 -> 2 workers.

    python benchmarks/engines.py [--turns 3] [--cases 16] [--noops 20000]

Each case is the examination of a real CT (78 DICOM slices of 512x512, read, hashed and searched for
details), as ``check`` does it. Cases that do nothing give the time that an engine itself takes for
one. A time without starts is from the first finished case to the last. The calls are repeated in
turns, and figures are medians over these. It needs the extra cluster, and two free cores.

CPU seconds (user and system) are those of this process, of the workers and of Ray's own processes,
which are what another program on the machine does not change; Ray's start, once a call, is apart.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from delineate.cohorts.checks import doctor
from delineate.cohorts.discovery.layouts import find
from delineate.core import atomic
from delineate.core.inputs import json_text
from delineate.execution.executor import Engine
from delineate.execution.on_ray import connected
from measure import DATA, keep

LINES = 200
KINDS = ("the call", "Ray's own processes")  # whose CPU seconds are measured, with the workers'
CALLS = ("local, 1", "local, 2", "ray, 1", "ray, 2")
RATIOS = {
    "ray against local, CPU a case": ("ray, 2", "local, 2", "CPU, a case_s"),
    "ray against local, without starts": ("ray, 2", "local, 2", "a case_s"),
    "ray against local, in all": ("ray, 2", "local, 2", "seconds"),
    "1 to 2 workers, local": ("local, 1", "local, 2", "a case_s"),
    "1 to 2 workers, ray": ("ray, 1", "ray, 2", "a case_s"),
}
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
    """A function that gives the CPU seconds of its process before and after a case."""

    function: Callable[[Any], Any]

    def __call__(self, item: Any) -> tuple[float, float]:
        begun = self._spent()
        self.function(item)
        return begun, self._spent()

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


def of_workers(values: Sequence[tuple[float, float]]) -> dict[str, float]:
    """CPU seconds of all workers, of what ``Measured`` gives."""
    return {"CPU of workers, a case_s": sum(end - begun for begun, end in values) / len(values)}


def timed(
    engine: str, workers: int, function: Callable[[Any], Any], items: list[Any]
) -> dict[str, float]:
    """Seconds of a call, those until its first case was finished, and those of one case after it,
    over all workers.
    """
    ends: list[float] = []
    used: list[dict[str, float]] = []
    began = time.perf_counter()

    def each(outcome: object) -> None:
        ends.append(time.perf_counter() - began)
        if len(ends) in (1, len(items)):
            used.append(own_cpu_s())

    # To measure a case that does nothing would take most of its time.
    outcomes = Engine.parsed(engine).run(
        function if function is nothing else Measured(function),
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
        found[f"CPU of {kind}, a case_s"] = (used[-1][kind] - used[0][kind]) / (len(ends) - 1)
    if engine == "local" and workers == 1:  # the call is the worker
        found[f"CPU of {KINDS[0]}, a case_s"] = 0.0
    if function is not nothing:
        found |= of_workers([outcome.value for outcome in outcomes if outcome.value is not None])
        kinds = (*KINDS, "workers")
        found["CPU, a case_s"] = sum(found[f"CPU of {kind}, a case_s"] for kind in kinds)
    print(engine, workers, {name: round(value, 4) for name, value in found.items()}, flush=True)
    return found


def turn(jobs: list[Any], numbers: list[int]) -> dict[str, dict[str, float]]:
    """All calls once: processes of this machine, and then a cluster, which ends with its turn."""
    found = {f"local, {n}": timed("local", n, doctor.examine, jobs) for n in (1, 2)}
    found["idle local, 2"] = timed("local", 2, nothing, numbers)
    began, before = time.perf_counter(), own_cpu_s()
    # One cluster for all its calls, as for a user who has one; what its start costs is apart.
    with connected(""):
        found["start"] = {"seconds": time.perf_counter() - began}
        found["start"] |= {f"CPU of {kind}_s": s - before[kind] for kind, s in own_cpu_s().items()}
        found |= {f"ray, {n}": timed("ray", n, doctor.examine, jobs) for n in (1, 2)}
        found["idle ray, 2"] = timed("ray", 2, nothing, numbers)
    return found


def middle(turns: list[dict[str, dict[str, float]]], name: str) -> dict[str, float]:
    """Medians over the turns, of each figure of a call."""
    rows = [one[name] for one in turns]
    return {what: round(statistics.median(row[what] for row in rows), 6) for what in rows[0]}


def ratios(turns: list[dict[str, dict[str, float]]], one: str, other: str, what: str) -> float:
    """The median over the turns, whose calls have about the same speed of the machine."""
    found = [turn[one][what] / turn[other][what] for turn in turns]
    print(f"{one} / {other}, {what}:", [round(ratio, 3) for ratio in found], flush=True)
    return statistics.median(found)


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
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--cases", type=int, default=16)
    parser.add_argument("--noops", type=int, default=20000)
    given = parser.parse_args()
    # One thread a worker, so that two workers have two cores.
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *_paths()])
    manifest = find(DATA / "chaos_ct")
    jobs = [(manifest.cases[0], manifest)] * given.cases
    numbers = list(range(given.noops))
    turns = [turn(jobs, numbers) for _ in range(given.turns)]
    keep(
        "engines",
        {
            "case": "chaos_ct: 78 DICOM slices of 512x512, examined",
            "turns": given.turns,
            "cases": given.cases,
            "cases without work": given.noops,
            "calls": {name: middle(turns, name) for name in CALLS},
            "calls without work": {
                name: middle(turns, f"idle {name}") for name in ("local, 2", "ray, 2")
            },
            "start of a cluster": middle(turns, "start"),
            "a line of the journal_ms": journal_ms(),
            **{name: ratios(turns, *which) for name, which in RATIOS.items()},
        },
    )


def _paths() -> list[str]:
    return [path for path in [os.environ.get("PYTHONPATH", "")] if path]


if __name__ == "__main__":
    main()
