"""Mutants that a coverage-guided engine chooses: those that reach new code are kept and changed
further.

    python -m benchmarks.faults.fuzz FOLDER --engine coverage [--form NIfTI] [--inputs 100000]

needs atheris (``pip install atheris``), which no other script needs. The seeds are the small files
of ``fuzz.corpus``, past crashes among them; what the engine finds in addition is kept in
FOLDER/reached/FORM, and read again by the next round. Half of the changes are those of ``fuzz``, so
that packed data and checksums are reached too. The code of delineate that reads, pydicom, nibabel
and tifffile are watched; code in C is not.

The engine runs in a process of its own, which ends with the first crash, hang or use of too much
memory and is started again. The number of the seed that a mutant replaces is its first byte.
"""

from __future__ import annotations

import argparse
import mmap
import os
import random
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path

WATCHED = ["delineate.formats", "delineate.core", "delineate.cohorts.discovery"]
OTHERS = ["pydicom", "nibabel", "tifffile"]
MOST_S, MOST_MB = 60, 1024  # on the clock of a busy machine; besides what is imported
PLAIN = 0.5  # share of the changes that are the engine's own


def rounds(form: str, inputs: int, folder: Path, seed: int, end_s: float) -> Iterator[str | int]:
    """A sentence about each mutant that is neither read nor refused as documented, or that ends the
    process; at last the number of mutants that were read.
    """
    place = folder / "reached" / form.replace(" ", "_")
    place.mkdir(parents=True, exist_ok=True)
    counter = place.parent / f"{place.name}.count"
    counter.write_bytes(bytes(8))
    done, number = 0, seed
    while done < inputs and time.monotonic() < end_s:
        words = [form, str(folder), str(place), str(counter), str(inputs - done), str(number)]
        seconds = min(end_s - time.monotonic(), 1e6)
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, *words, str(int(seconds) + 1)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        said, other = process.communicate()
        yield from said.splitlines()
        read = int.from_bytes(counter.read_bytes(), "little")
        if process.returncode:
            yield f"{form}: the process ended with {process.returncode}: {other[-400:]}"
            if read == done:
                break
        done, number = read, number + 1
        if not process.returncode:
            break
    yield done


def _fuzz(given: argparse.Namespace) -> None:
    """The engine: reads mutants of one format, and prints a sentence about each that is wrong."""
    import atheris

    with atheris.instrument_imports(include=[*WATCHED, *OTHERS]):
        from delineate.cohorts.discovery import names  # noqa: F401
        from delineate.formats import dicom, files, label_files, outlines  # noqa: F401

        for name in OTHERS:
            __import__(name)
    from .fuzz import corpus, fault_of, mutant
    from .reading import place_of

    warnings.simplefilter("ignore")
    seeds = [(one, path, path.read_bytes()) for one, path in corpus(given.form, given.folder)][:256]
    first = given.place.parent / f"{given.place.name}.seeds"
    first.mkdir(exist_ok=True)
    for number, (_, _, content) in enumerate(seeds):
        (first / str(number)).write_bytes(bytes([number]) + content)
    with given.counter.open("r+b") as file:
        count = mmap.mmap(file.fileno(), 8)
    kept, known = given.folder / "kept", set[str]()
    kept.mkdir(exist_ok=True)

    def one(data: bytes) -> None:
        count[:] = (int.from_bytes(count[:], "little") + 1).to_bytes(8, "little")
        if not data:
            return
        fault, path, before = seeds[data[0] % len(seeds)]
        path.write_bytes(data[1:])
        try:
            wrong = fault_of(place_of(fault, given.folder), fault.reading)
        except BaseException:
            wrong = traceback.format_exc()
        path.write_bytes(before)
        # Of one kind of error the first mutant is kept.
        if wrong and (kind := wrong.split(":")[0] + wrong[-30:]) not in known:
            known.add(kind)
            name = f"{given.place.name}_guided_{given.seed}_{len(known)}_{path.name}"
            (kept / name).write_bytes(data[1:])
            print(f"{given.form}, {name}: {' '.join(wrong.split())}", flush=True)

    def change(data: bytes, most: int, seed: int) -> bytes:
        chance = random.Random(seed)
        if len(data) < 2 or chance.random() < PLAIN:
            return bytes(atheris.Mutate(data, most))
        kind = chance.choice(("bytes", "kept-back", "structure"))
        other = chance.choice(seeds)[2]
        return (data[:1] + mutant(data[1:], other, kind, chance))[:most]

    own = f"-artifact_prefix={kept}{os.sep}{given.place.name}_ended_"
    limits = [f"-runs={given.runs}", f"-max_total_time={given.seconds}", f"-timeout={MOST_S}"]
    limits += [f"-rss_limit_mb={MOST_MB + 600}", f"-seed={given.seed + 1}", "-max_len=200000"]
    words = [sys.argv[0], str(given.place), str(first), own, *limits]
    atheris.Setup(words, one, custom_mutator=change)
    atheris.Fuzz()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("form")
    for name in ("folder", "place", "counter"):
        parser.add_argument(name, type=Path)
    for name in ("runs", "seed", "seconds"):
        parser.add_argument(name, type=int)
    _fuzz(parser.parse_args())


if __name__ == "__main__":
    main()
