"""Mutants of sound and damaged files: each must be read or refused by a documented error.

    python -m benchmarks.faults.fuzz FOLDER [--inputs 100000] [--form NIfTI] [--seed 0]

The corpus is every file of this package, small ones only. Bytes of the first 4 kB are changed most,
where headers are; some mutants are cut. A mutant that raises anything else, or costs more than 5 s
of computing, is kept in FOLDER/kept; add it to the files of this package.
"""

from __future__ import annotations

import argparse
import random
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path

from .every import FAULTS
from .made import Fault
from .reading import MOST_CPU_S, documented, place_of, read_by_delineate

LARGEST = 200_000  # bytes of a file of the corpus
VALUES = (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f", b"9999", b"-1", b"nan ")
FORMS = sorted({one.form for one in FAULTS} - {"No regular file", "HDF5"})


class _SlowError(Exception):
    """A mutant costs too much."""


def _too_slow(*_: object) -> None:
    raise _SlowError(f"more than {MOST_CPU_S} s of computing")


def corpus(form: str, folder: Path) -> list[tuple[Fault, Path]]:
    """The small files of a format, and the file of each that is changed."""
    found = []
    for fault in (one for one in FAULTS if one.form == form):
        if "GB" in fault.what or "500 MB" in fault.what:
            continue
        path = place_of(fault, folder)
        place = path.parent if fault.reading == "pair" else path
        files = sorted(place.iterdir()) if place.is_dir() else [place]
        if files and all(0 < one.stat().st_size < LARGEST for one in files):
            found.append((fault, files[min(4, len(files) - 1)]))
    return found


def mutant(data: bytes, chance: random.Random) -> bytes:
    """``data`` with a few changes."""
    out = bytearray(data)
    for _ in range(chance.choice((1, 2, 4, 8))):
        reach = len(out) if chance.random() < 0.2 else min(len(out), 4096)
        if not reach:
            break
        at, kind = chance.randrange(reach), chance.random()
        if kind < 0.5:
            out[at] = chance.randrange(256)
        elif kind < 0.7:
            out[at] ^= 1 << chance.randrange(8)
        elif kind < 0.9:
            value = chance.choice(VALUES)
            out[at : at + len(value)] = value
        else:
            del out[chance.randrange(len(out)) :]
    return bytes(out)


def fuzz(form: str, inputs: int, folder: Path, seed: int = 0) -> Iterator[str]:
    """A sentence about each mutant that is neither read nor refused as documented."""
    chance = random.Random(f"{form} {seed}")
    files = corpus(form, folder)
    signal.signal(signal.SIGPROF, _too_slow)
    for number in range(inputs):
        fault, changed = chance.choice(files)
        before = changed.read_bytes()
        changed.write_bytes(mutant(before, chance))
        signal.setitimer(signal.ITIMER_PROF, MOST_CPU_S)
        try:
            read_by_delineate(place_of(fault, folder), fault.reading)
        except documented():
            pass
        except Exception as error:
            kept = folder / "kept" / f"{form.replace(' ', '_')}_{number}_{changed.name}"
            kept.parent.mkdir(exist_ok=True)
            kept.write_bytes(changed.read_bytes())
            yield f"{form}, mutant {number} of {fault.what!r}: {type(error).__name__}: {error}"
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            changed.write_bytes(before)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--form", choices=FORMS)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    for form in [given.form] if given.form else FORMS:
        wrong = list(fuzz(form, given.inputs, given.folder, given.seed))
        print(f"{form}: {given.inputs} mutants, {len(wrong)} not as documented", flush=True)
        for sentence in wrong:
            print(f"    {sentence}")


if __name__ == "__main__":
    main()
