"""Reads damaged files in a child process each, with a limit of memory and time, and judges what
comes back. A file may cost ``MOST_CPU_S`` and ``MOST_BYTES``.

    python -m benchmarks.faults.reading FOLDER [--reader NAME] [--form FORM]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .made import AFFINE, BASE, BOX, MASK, SPACING_MM, Fault
from .pictures import PIXELS
from .records import READ

MOST_CPU_S, MOST_WALL_S, MOST_BYTES = 5, 30, 1 << 30
NAMES = {1: "liver", 2: "spleen"}
Reader = Callable[[Path, str], Any]


@dataclass(frozen=True)
class Outcome:
    """What reading a file gave: "right", "refused", "silently wrong", "wrongly refused", "crashed",
    "hangs" or "too much memory"; with the message, the seconds of computing and the peak of memory.
    """

    verdict: str
    message: str
    seconds: float
    peak_bytes: int


def place_of(fault: Fault, folder: Path) -> Path:
    """The path that a reader gets, after the file was made in ``folder``."""
    path = folder / fault.form.replace(" ", "_") / fault.name
    if not os.path.lexists(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        fault.make(path)
    if "/" in fault.reading:
        return path / fault.reading.partition("/")[2]
    return path / "a.hdr" if fault.reading == "pair" else path


def read_by_delineate(path: Path, reading: str) -> Any:
    """The array of a file, or the names of a list."""
    from delineate.cohorts.discovery.names import read_label_names
    from delineate.core.manifest import Source
    from delineate.formats import files

    if (kind := reading.partition("/")[0]) in READ:
        return READ[kind][0](path)
    if reading == "labels":
        return {label.value: label.name for label in read_label_names(path)}
    if reading == "array":
        return files.read(Source(str(path), spacing_mm=SPACING_MM, axes="RAS")).array
    if reading == "contours":
        from delineate.core.grid import Grid
        from delineate.formats.dicom import read_rtstruct

        # The grid of the DICOM series, whose axes are LPS.
        return read_rtstruct(path, Grid(BASE.shape, np.diag([-1, -1, 1, 1]) @ AFFINE)).array
    if reading == "archive":
        from delineate.formats import dicom

        # As the child process does that reads archives.
        return dicom.read_series(dicom.choose(path)).array
    return files.read(path).array


def documented() -> tuple[type[BaseException], ...]:
    """The errors by which delineate refuses."""
    from delineate.core.errors import DelineateError

    return (DelineateError,)


def outcome(
    fault: Fault, path: Path, reader: Reader, refusals: tuple[type[BaseException], ...]
) -> Outcome:
    """Read the file in a copy of this process."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receive)
        _child(fault, path, reader, refusals, send)
    os.close(send)
    with os.fdopen(receive, "rb") as pipe:
        sent = pipe.read()
    _, status, used = os.wait4(child, 0)
    seconds = used.ru_utime + used.ru_stime
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        verdict = "hangs" if number in (signal.SIGALRM, signal.SIGPROF) else "crashed"
        return Outcome(verdict, f"signal {number}", seconds, used.ru_maxrss << 10)
    verdict, message, peak = json.loads(sent)
    if peak > MOST_BYTES:
        verdict = "too much memory"
    return Outcome(verdict, message, seconds, peak)


def _child(
    fault: Fault,
    path: Path,
    reader: Reader,
    refusals: tuple[type[BaseException], ...],
    send: int,
) -> None:
    import psutil

    held = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (held + 5 * MOST_BYTES, held + 5 * MOST_BYTES))
    signal.alarm(MOST_WALL_S)
    signal.setitimer(signal.ITIMER_PROF, MOST_CPU_S)
    try:
        found = reader(path, fault.reading)
        same = right(found, fault.reading)
        verdict = "right" if fault.accepted and same else "silently wrong"
        message = f"read as {getattr(found, 'shape', found)}"[:200]
    except refusals as error:
        verdict = "wrongly refused" if fault.accepted else "refused"
        message = str(error)
    except BaseException as error:
        verdict, message = "crashed", f"{type(error).__name__}: {error}"[:300]
    signal.alarm(0)
    signal.setitimer(signal.ITIMER_PROF, 0)
    with open("/proc/self/status", encoding="ascii") as status:
        peak = next(int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM"))
    os.write(send, json.dumps([verdict, message, peak]).encode()[:60_000])
    os._exit(0)


def right(found: Any, reading: str) -> bool:
    """Whether this is what the sound file of a kind of reading gives."""
    if (kind := reading.partition("/")[0]) in READ:
        return bool(found == READ[kind][1])
    if reading == "labels":
        return bool(found == NAMES)
    if reading == "picture":
        # A palette gives three equal colours; JPEG is not exact.
        grey = found[0] if found.ndim == 4 else found
        same = grey.shape == (*PIXELS.T.shape, 1)
        return same and np.abs(grey[..., 0].astype(int) - PIXELS.T).max() <= 3
    expected = {"segments": MASK, "contours": BOX}.get(reading, BASE)
    return np.array_equal(found, expected)


def run(
    faults: Iterable[Fault],
    folder: Path,
    reader: Reader = read_by_delineate,
    refusals: tuple[type[BaseException], ...] | None = None,
) -> dict[str, Outcome]:
    """Fault -> outcome, by form and words."""
    refusals = documented() if refusals is None else refusals
    return {
        f"{one.form}: {one.what}": outcome(one, place_of(one, folder), reader, refusals)
        for one in faults
    }


def warm_up(faults: Iterable[Fault], folder: Path) -> None:
    """Import what readers import on first use, before they are measured."""
    for one in faults:
        if one.accepted and "sound" in one.what:
            with contextlib.suppress(Exception):
                read_by_delineate(place_of(one, folder), one.reading)


def main() -> None:
    from .every import FAULTS

    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--form")
    given = parser.parse_args()
    chosen = [one for one in FAULTS if given.form in (None, one.form)]
    warm_up(chosen, given.folder)
    found = run(chosen, given.folder)
    json.dump({name: asdict(one) for name, one in found.items()}, sys.stdout)


if __name__ == "__main__":
    main()
