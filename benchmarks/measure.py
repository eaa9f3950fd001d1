"""Shared by the benchmarks: a measured child process, medians, the machine, and the result files.

Memory of both sides is measured alike: ``measured`` in the child process resets the kernel's peak
counter just before the call.
"""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

# The folder of the real scans.
DATA = Path(os.environ.get("DELINEATE_DATA", Path(__file__).parents[2] / "shared" / "data"))


# Put before the code of every measured child process: it leaves the peak memory in PEAK_FILE.
PEAK = """
import ctypes, gc, statistics, time


def measured(work, runs=5, warm=True):
    # Median seconds, and the growth of the peak over what is held just before the call.
    def held(what):
        lines = [line for line in open("/proc/self/status") if line.startswith(what)]
        return int(lines[0].split()[1]) / 1e3

    if warm:
        work()
    taken = []
    # Return freed memory to the system, else the call could use it again unseen; then reset VmHWM.
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    open("/proc/self/clear_refs", "w").write("5")
    before = held("VmRSS")
    for _ in range(runs):
        began = time.perf_counter()
        result = work()
        taken.append(time.perf_counter() - began)
        del result
    return {
        "work_s": statistics.median(taken),
        "fastest_s": min(taken),
        "slowest_s": max(taken),
        "beyond_input_mb": held("VmHWM") - before,
    }


def peak_mb():
    import resource, sys

    # On Linux, ru_maxrss starts at the peak of the parent process, so VmHWM is used instead.
    if sys.platform == "linux":
        lines = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
        return int(lines[0].split()[1]) / 1e3
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)


import atexit, os

atexit.register(lambda: open(os.environ["PEAK_FILE"], "w").write(str(peak_mb())))
"""


def child(
    code: str,
    *arguments: str,
    python: Path | None = None,
    environment: dict[str, str] | None = None,
) -> dict[str, float]:
    """Run ``code`` in a new Python process and measure it.

    In ``code``, ``peak_mb()`` returns the peak memory so far.

    Args:
        code: the program; ``arguments`` are its ``sys.argv[1:]``.
        python: the Python of another environment; None is this one.
        environment: additional environment variables.

    Returns:
        "seconds" (wall clock), "peak_mb" (resident memory of that process alone), and the entries
        of the JSON object in the last line that the program prints, if there is one.

    Raises:
        SystemExit: the process failed.
    """
    with tempfile.NamedTemporaryFile() as file:
        began = time.perf_counter()
        process = subprocess.run(
            [str(python or sys.executable), "-c", PEAK + code, *arguments],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | (environment or {}) | {"PEAK_FILE": file.name},
        )
        taken = time.perf_counter() - began
        if process.returncode:
            raise SystemExit(f"a measured process failed:\n{process.stderr[-3000:]}")
        peak = float(Path(file.name).read_text())
    out = process.stdout
    printed = (
        json.loads(out.strip().splitlines()[-1])
        if out.strip().startswith("{") or "\n{" in out
        else {}
    )
    return {"seconds": taken, "peak_mb": peak, **printed}


def timed(
    line: Sequence[str | Path],
    environment: dict[str, str] | None = None,
    allowed: Sequence[int] = (0,),
) -> float:
    """Seconds of a command; what it prints goes to stderr.

    Raises:
        CalledProcessError: its exit code is not ``allowed``.
    """
    began = time.perf_counter()
    done = subprocess.run(
        [str(word) for word in line], stdout=sys.stderr, env=os.environ | (environment or {})
    )
    if done.returncode not in allowed:
        done.check_returncode()
    return time.perf_counter() - began


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
    """The processor's name and its two most relevant vector or matrix extensions."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    info = {
        key.strip(): value.strip()
        for key, _, value in (line.partition(":") for line in lines)
        if value
    }
    flags = set(info.get("flags", "").split())
    extensions = [
        name
        for flag, name in (
            ("amx_bf16", "AMX"),
            ("avx512_bf16", "bf16"),
            ("avx512f", "AVX-512"),
            ("avx2", "AVX2"),
        )
        if flag in flags
    ]
    return f"{info.get('model name', platform.machine())} ({', '.join(extensions[:2])})"


def machine() -> dict[str, Any]:
    """What a page states: processor, cores, vector flags, and the versions that matter."""
    names = ("torch", "openvino", "numpy", "numba", "nnunetv2", "monai", "torchio", "SimpleITK")
    installed = {one.metadata["Name"].lower(): one.version for one in metadata.distributions()}
    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": {n: installed[n.lower()] for n in names if n.lower() in installed},
    }


def slug(of: dict[str, Any]) -> str:
    """The name of a machine's page and folder of records."""
    words = re.sub(r"[^a-z0-9]+", "-", of["processor"].lower()).strip("-")
    return f"{words}-{of['cores']}-cores"


def keep(name: str, result: dict[str, Any], folder: Path | None = None) -> None:
    """Print a result, and write it with machine and command to ``results/NAME.json``, or to the
    folder that ``BENCHMARK_RESULTS`` names.
    """
    record = {
        "benchmark": name,
        "command": f"python {' '.join(sys.argv)}",
        "machine": machine(),
        **result,
    }
    chosen = Path(os.environ.get("BENCHMARK_RESULTS", Path(__file__).parent / "results"))
    target = (folder or chosen) / f"{name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))
