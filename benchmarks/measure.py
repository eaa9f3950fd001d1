"""Shared by the benchmarks: a measured child process, medians, the machine, and the result files.

Memory of both sides is measured alike: ``measured`` in the child process resets the kernel's peak
counter just before the call.
"""

from __future__ import annotations

import compileall
import contextlib
import functools
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

# The folder of the real scans.
DATA = Path(os.environ.get("DELINEATE_DATA", Path(__file__).parents[2] / "shared" / "data"))


# Prints the versions of all packages of an environment.
VERSIONS = """
import json
from importlib import metadata

found = metadata.distributions()
print(json.dumps({one.metadata["Name"].lower(): one.version for one in found}))
"""
# Put before the code of every measured child process: it leaves the peak memory in PEAK_FILE.
PEAK = """
import ctypes, gc, os, statistics, time


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
        if "IN_TURNS" in os.environ:
            print("READY", flush=True)
            input()
        began = time.perf_counter()
        result = work()
        taken.append(time.perf_counter() - began)
        del result
    return {
        "work_s": statistics.median(taken),
        "each_s": [round(one, 5) for one in taken],
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


import atexit

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
    return {"seconds": taken, "peak_mb": peak, **_printed(process.stdout)}


def _printed(out: str) -> dict[str, float]:
    """The JSON object in the last line; empty if there is none."""
    lines = out.strip().splitlines()
    return dict(json.loads(lines[-1])) if lines and lines[-1].startswith("{") else {}


@dataclass(frozen=True)
class Way:
    """One way to do the work that is compared, a program that calls ``measured`` once. Fields are
    the arguments of ``child``.
    """

    code: str
    arguments: Sequence[str] = ()
    python: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


def children_in_turns(ways: Mapping[str, Way]) -> dict[str, dict[str, float]]:
    """Programs that all exist at once and whose measured calls alternate, so that a machine that
    becomes slower meanwhile slows all of them. Each is a process of its own, as in ``child``; only
    one computes at a time, the others wait.

    Returns:
        name -> the entries of the JSON object that the program prints last.

    Raises:
        SystemExit: a program failed.
    """
    with contextlib.ExitStack() as stack:
        running = {}
        for name, way in ways.items():
            errors = stack.enter_context(tempfile.TemporaryFile("w+"))
            peak = stack.enter_context(tempfile.NamedTemporaryFile())
            process = subprocess.Popen(
                [str(way.python or sys.executable), "-c", PEAK + way.code, *way.arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=os.environ | way.environment | {"PEAK_FILE": peak.name, "IN_TURNS": "1"},
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            # Not until this one has warmed up does the next one start.
            running[name] = process, errors, _until_ready(process)
        found: dict[str, dict[str, float]] = {}
        while running:
            for name, (process, errors, printed) in list(running.items()):
                assert process.stdin is not None
                if printed is None:
                    with contextlib.suppress(BrokenPipeError):
                        print(file=process.stdin, flush=True)
                    running[name] = process, errors, _until_ready(process)
                    continue
                del running[name]
                if process.wait():
                    errors.seek(0)
                    raise SystemExit(f"a measured process failed:\n{errors.read()[-3000:]}")
                found[name] = _printed(printed)
    return {name: found[name] for name in ways}


def _until_ready(process: subprocess.Popen[str]) -> str | None:
    """None when a program waits for its turn; what it printed since then when it has ended."""
    lines = []
    assert process.stdout is not None
    for line in process.stdout:
        if line == "READY\n":
            return None
        lines.append(line)
    return "".join(lines)


# A sample of shared memory halts a process for as long as it has pages, 50 ms for 2 GB: samples may
# take this part of the time, and are taken at once where the resident memory changes by ``CHANGE``.
WATCHING, CHANGE = 0.02, 0.02


def whole_process(
    command: Sequence[str], environment: dict[str, str] | None = None
) -> tuple[float, float]:
    """Seconds of a command from outside, and the peak in MB of the memory of it and all processes
    that it starts, to about 2 %; shared memory is divided among those that share it.

    Raises:
        SystemExit: it failed.
    """
    began = time.perf_counter()
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ | (environment or {}),
    )
    over = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        peak = pool.submit(_peak_bytes, process.pid, over)
        _, errors = process.communicate()
        taken = time.perf_counter() - began
        over.set()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{errors.decode()[-2000:]}")
    return taken, peak.result() / 1e6


def _peak_bytes(pid: int, over: threading.Event) -> int:
    """The peak of the memory of a process and its children until ``over``."""
    import psutil

    peak, known, due = 0, 0, 0.0
    with contextlib.suppress(psutil.NoSuchProcess):
        me = psutil.Process(pid)
        while not over.wait(0.1):
            all_of_it = me, *me.children(recursive=True)
            resident = _total(all_of_it, lambda one: one.memory_info().rss)
            began = time.perf_counter()
            if abs(resident - known) > CHANGE * known or began > due:
                known = resident
                peak = max(peak, _total(all_of_it, lambda one: one.memory_full_info().pss))
                ended = time.perf_counter()
                due = ended + (ended - began) / WATCHING
    return peak


def _total(processes: Sequence[Any], of: Callable[[Any], int]) -> int:
    """The sum of a figure of several processes, without those that have ended."""
    import psutil

    total = 0
    for one in processes:
        with contextlib.suppress(psutil.Error):
            total += of(one)
    return total


def summed(runs: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Medians of the seconds and MB of several runs of ``whole_process``, and the seconds of each
    run.
    """
    return {
        "seconds": round(statistics.median(s for s, _ in runs), 3),
        "each_s": [round(s, 3) for s, _ in runs],
        "mb": round(statistics.median(m for _, m in runs), 1),
    }


# Every process finds compiled modules, as those of an installed package are: compiling a thousand
# sources at every start would be most of what a small case costs.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
compileall.compile_dir(Path(__file__).parents[1] / "src", quiet=2)


@functools.cache
def checkout(folder: Path | None) -> Mapping[str, str]:
    """The environment variables with which a process of this environment runs the package of
    another checkout, whose modules it compiles; none for this one.
    """
    if folder is None:
        return {}
    source = folder.resolve() / "src"
    compileall.compile_dir(source, quiet=2)
    return {"PYTHONPATH": str(source)}


_PEERS: set[Path] = set()  # environments that were asked for


@functools.cache
def python_with(module: str, peer: Path | None) -> Path | None:
    """The Python of the peers' environment, or else of this one, that has a module; None if neither
    has it.
    """
    if peer is not None and (peer / "bin" / "python").is_file():
        _PEERS.add(peer)
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
    for python in (*([peer / "bin" / "python"] if peer else ()), Path(sys.executable)):
        if python.is_file() and not subprocess.run([python, "-c", code]).returncode:
            return python
    return None


def absent(modules: Mapping[str, str], peer: Path | None) -> list[str]:
    """The names of the packages (name -> module) that are nowhere installed; a page states them."""
    return [name for name, module in modules.items() if python_with(module, peer) is None]


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


def in_turns(functions: Mapping[str, Callable[[], Any]], runs: int = 5) -> dict[str, Any]:
    """Each function after one warm-up, in turns: median seconds, and the seconds of each run."""
    taken: dict[str, list[float]] = {name: [] for name in functions}
    for run in range(runs + 1):
        for name, function in functions.items():
            began = time.perf_counter()
            function()
            if run:
                taken[name].append(round(time.perf_counter() - began, 5))
    return {
        name: {"seconds": statistics.median(each), "each_s": each} for name, each in taken.items()
    }


def seconds(function: Callable[[], Any], runs: int = 5) -> float:
    """Median seconds of ``function`` after one warm-up."""
    found: float = in_turns({"": function}, runs)[""]["seconds"]
    return found


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
    """What a page states: processor, cores, vector flags, and the versions that matter, of the
    peers' environment only what is not installed in this one.
    """
    names = ("torch", "openvino", "numpy", "numba", "nnunetv2", "monai", "torchio", "SimpleITK")
    installed: dict[str, str] = {}
    for peer in sorted(_PEERS):
        installed |= _versions_in(peer)
    installed |= {one.metadata["Name"].lower(): one.version for one in metadata.distributions()}
    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": {n: installed[n.lower()] for n in names if n.lower() in installed},
    }


@functools.cache
def commit(folder: Path = Path(__file__).parent) -> str:
    """The commit of a checkout, with a plus if files of the package differ from it; "" if it is
    none.
    """
    git = ["git", "-C", str(folder)]
    try:
        found = subprocess.check_output([*git, "rev-parse", "--short", "HEAD"], text=True).strip()
        changed = subprocess.check_output([*git, "status", "--porcelain", "--", ":/src"])
    except (OSError, subprocess.CalledProcessError):
        return ""
    return found + "+" * bool(changed)


@functools.cache
def _versions_in(peer: Path) -> dict[str, str]:
    found = subprocess.check_output([peer / "bin" / "python", "-c", VERSIONS])
    return dict(json.loads(found))


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
        "commit": commit(),
        "machine": machine(),
        **result,
    }
    chosen = Path(os.environ.get("BENCHMARK_RESULTS") or Path(__file__).parent / "results")
    target = (folder or chosen) / f"{name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))
