"""What the benchmarks share: a child process measured from outside, medians, and one JSON line a result."""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

DATA = Path(os.environ.get("DELINEATE_DATA", Path(__file__).parents[2] / "shared" / "data"))  # the real scans


def child(code: str, *arguments: str, python: Path | None = None) -> dict[str, float]:
    """Run ``code`` in a fresh Python (another environment's, if given); seconds of wall clock and peak resident memory in MB of that process alone.

    A last line of JSON that it prints is added.
    """
    began = time.perf_counter()
    process = subprocess.Popen([str(python or sys.executable), "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    out, err = process.stdout.read(), process.stderr.read()  # type: ignore[union-attr]
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"a measured process failed:\n{err[-3000:]}")
    peak = usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    printed = json.loads(out.strip().splitlines()[-1]) if out.strip().startswith("{") or "\n{" in out else {}
    return {"seconds": time.perf_counter() - began, "peak_mb": peak, **printed}


def medians(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    """Median of every figure over several runs."""
    return {key: round(statistics.median(run[key] for run in runs), 3) for key in runs[0]}


def seconds(function: Callable[[], Any], runs: int = 5) -> float:
    """Median seconds of ``function`` after one warm-up."""
    function()
    taken = []
    for _ in range(runs):
        began = time.perf_counter()
        function()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def processor() -> str:
    """What it calls itself, and the units that matter here."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    said = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines) if value}
    flags = set(said.get("flags", "").split())
    units = [name for flag, name in (("amx_bf16", "AMX"), ("avx512f", "AVX-512"), ("avx2", "AVX2")) if flag in flags]
    return f"{said.get('model name', platform.machine())} ({', '.join(units[:2])})"


def keep(name: str, result: dict[str, Any], folder: Path | None = None) -> None:
    """Print a result and write it to ``results/NAME.json`` with machine and command."""
    machine = {"processor": processor(), "cores": len(os.sched_getaffinity(0)), "python": platform.python_version()}
    record = {"benchmark": name, "command": f"python {' '.join(sys.argv)}", "machine": machine, **result}
    target = (folder or Path(__file__).parent / "results") / f"{name}.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


def own_peak_mb() -> float:
    """Peak resident memory of this process in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
