"""Mutants of sound and damaged files: each must be read or refused by a documented error.

    python -m benchmarks.faults.fuzz FOLDER [--inputs 100000] [--form NIfTI] [--seed 0]
        [--kind bytes] [--minutes 60] [--engine coverage]

The corpus is every file of this package, small ones only; there a crash is kept once it was found.
Bytes of the first 4 kB are changed most, where headers are. Packed data are also changed before
they are packed, and checksums of PNG are often made right again, so that changes reach the parsers.
``--kind kept-back`` makes changes of other kinds: blocks that move, double or come from another
file. ``--kind structure`` changes fields of headers (``headers``), elements of DICOM (``elements``)
and nodes of texts (``documents``), where the file can be divided into them. Half of the mutants are
those of sound files, which get further than those of damaged ones.

``--engine coverage`` lets an engine choose them by the code that they reach (``guided``).

Mutants are read in a copy of this process, which ends with the first crash and is replaced. A
mutant that raises anything else, ends the process, or costs more than 5 s of computing or 1 GiB, is
kept in FOLDER/kept; add it to the files of this package.
"""

from __future__ import annotations

import argparse
import gzip
import mmap
import os
import random
import re
import resource
import signal
import struct
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import documents, elements, guided, headers
from .every import FAULTS
from .made import Fault
from .reading import MOST_BYTES, MOST_CPU_S, documented, place_of, read_by_delineate

MOST_WAIT_S = 600  # on the clock, also of a busy machine: for readers that wait for something
LARGEST = 200_000  # bytes of a file of the corpus
VALUES = (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f", b"9999", b"-1", b"nan ")
FORMS = sorted({one.form for one in FAULTS} - {"No regular file"})
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?")
Edit = Callable[[bytearray, bytes, random.Random], None]
KINDS = ("bytes", "kept-back", "structure")


# ---- mutants ----


def _byte(out: bytearray, other: bytes, chance: random.Random) -> None:
    out[_place(out, chance)] = chance.randrange(256)


def _bit(out: bytearray, other: bytes, chance: random.Random) -> None:
    out[_place(out, chance)] ^= 1 << chance.randrange(8)


def _value(out: bytearray, other: bytes, chance: random.Random) -> None:
    value = chance.choice(VALUES)
    at = _place(out, chance)
    out[at : at + len(value)] = value


def _cut(out: bytearray, other: bytes, chance: random.Random) -> None:
    del out[chance.randrange(len(out)) :]


def _doubled(out: bytearray, other: bytes, chance: random.Random) -> None:
    at = _place(out, chance)
    block = out[at : at + chance.randrange(1, 400)]
    out[at:at] = block * chance.choice((1, 2, 50))


def _removed(out: bytearray, other: bytes, chance: random.Random) -> None:
    at = _place(out, chance)
    del out[at : at + chance.randrange(1, 400)]


def _moved(out: bytearray, other: bytes, chance: random.Random) -> None:
    one, to, length = _place(out, chance), _place(out, chance), chance.randrange(1, 64)
    out[to : to + length] = out[one : one + length]


def _filled(out: bytearray, other: bytes, chance: random.Random) -> None:
    at, length = _place(out, chance), chance.randrange(1, 400)
    out[at : at + length] = bytes([chance.choice((0, 255, 32))]) * len(out[at : at + length])


def _spliced(out: bytearray, other: bytes, chance: random.Random) -> None:
    at = _place(out, chance)
    out[at:] = other[min(at, len(other)) :]


def _counted(out: bytearray, other: bytes, chance: random.Random) -> None:
    """A binary integer one more or less, or doubled."""
    form = chance.choice(("<h", ">h", "<i", ">i", "<q"))
    at = _place(out, chance) & ~1
    if at + struct.calcsize(form) <= len(out):
        (value,) = struct.unpack_from(form, out, at)
        changed = chance.choice((value + 1, value - 1, 2 * value, -value))
        size = 8 * struct.calcsize(form)
        struct.pack_into(form, out, at, (changed + (1 << size - 1)) % (1 << size) - (1 << size - 1))


def _written(out: bytearray, other: bytes, chance: random.Random) -> None:
    """A number in a text replaced by another."""
    if found := list(_NUMBER.finditer(out, 0, 4096)):
        one = chance.choice(found)
        words = (b"0", b"-1", b"1e308", b"nan", b"inf", b"65536", b"2147483648", b"1" * 30, b"")
        out[one.start() : one.end()] = chance.choice(words)


EDITS: tuple[Edit, ...] = (_byte, _byte, _byte, _byte, _byte, _bit, _bit, _value, _value, _cut)
KEPT_BACK: tuple[Edit, ...] = (_doubled, _removed, _moved, _filled, _spliced, _counted, _written)


def _place(data: bytearray, chance: random.Random) -> int:
    return chance.randrange(len(data) if chance.random() < 0.2 else min(len(data), 4096))


def mutant(data: bytes, other: bytes, kind: str, chance: random.Random) -> bytes:
    """``data`` with a few changes of a kind, some with parts of ``other``."""
    if data[:2] == b"\x1f\x8b" and (kind == "structure" or chance.random() < 0.5):
        try:
            return gzip.compress(
                mutant(gzip.decompress(data), other, kind, chance), compresslevel=1
            )
        except (OSError, EOFError, zlib.error):
            pass  # one of the damaged files
    if kind == "structure":
        changed = headers.mutant(data, chance) or elements.mutant(data, chance)
        changed = changed or documents.mutant(data, chance)
        return changed or mutant(data, other, "bytes", chance)
    out, edits = bytearray(data), KEPT_BACK if kind == "kept-back" else EDITS
    for _ in range(chance.choice((1, 2, 4, 8))):
        if out:
            chance.choice(edits)(out, other, chance)
    if out[:4] == b"\x89PNG" and chance.random() < 0.8:
        _check_again(out)
    return bytes(out)


def _check_again(png: bytearray) -> None:
    """Give every chunk of a PNG its right checksum (PNG specification, section 5)."""
    at = 8
    while at + 12 <= len(png):
        end = at + 8 + int.from_bytes(png[at : at + 4], "big")
        if end + 4 > len(png):
            break
        png[end : end + 4] = zlib.crc32(png[at + 4 : end]).to_bytes(4, "big")
        at = end + 4


# ---- reading them ----


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


@dataclass
class Round:
    """The mutants of one format; each follows from the round and its number alone. ``done`` counts
    those that were read.
    """

    form: str
    inputs: int
    folder: Path
    seed: int = 0
    kind: str = "bytes"
    end_s: float = float("inf")  # of the monotonic clock, when it ends early
    done: int = 0

    def wrong(self) -> Iterator[str]:
        """A sentence about each mutant that is neither read nor refused as documented."""
        files = [(fault, path, path.read_bytes()) for fault, path in corpus(self.form, self.folder)]
        at = mmap.mmap(-1, 8)  # the number of the mutant that is being read
        while self.done < self.inputs and time.monotonic() < self.end_s:
            receive, send = os.pipe()
            child = os.fork()
            if child == 0:
                os.close(receive)
                with os.fdopen(send, "w", encoding="utf-8") as say:
                    self._read(files, at, say.write)
                os._exit(0)
            os.close(send)
            with os.fdopen(receive, encoding="utf-8") as said:
                for line in said:
                    wrong, _, sentence = line.rstrip("\n").partition(" ")
                    yield self._kept(files, int(wrong), sentence)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            self.done = int.from_bytes(at[:], "little")
            if status:
                yield self._kept(files, self.done, _end(status))
                self.done += 1

    def _mutant(
        self, files: Sequence[tuple[Fault, Path, bytes]], number: int
    ) -> tuple[Fault, Path, bytes, bytes]:
        chance = random.Random(f"{self.form} {self.kind} {self.seed} {number}")
        sound = [one for one in files if one[0].accepted]
        fault, path, before = chance.choice(sound if sound and chance.random() < 0.5 else files)
        return fault, path, before, mutant(before, chance.choice(files)[2], self.kind, chance)

    def _read(
        self,
        files: Sequence[tuple[Fault, Path, bytes]],
        at: mmap.mmap,
        say: Callable[[str], object],
    ) -> None:
        """Read the mutants that are left; ends at the first that needs too much memory."""
        # Time ends the process also inside C code; what a reader catches cannot hide it.
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        most = _peak() + MOST_BYTES
        for number in range(self.done, self.inputs):
            at[:] = number.to_bytes(8, "little")
            if time.monotonic() > self.end_s:
                return
            fault, path, before, changed = self._mutant(files, number)
            path.write_bytes(changed)
            signal.setitimer(signal.ITIMER_PROF, MOST_CPU_S)
            signal.alarm(MOST_WAIT_S)
            if wrong := fault_of(place_of(fault, self.folder), fault.reading):
                say(f"{number} {wrong}\n")
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.alarm(0)
            path.write_bytes(before)
            if _peak() > most:
                say(f"{number} needed more than {MOST_BYTES >> 30} GiB\n")
                at[:] = (number + 1).to_bytes(8, "little")
                return
        at[:] = self.inputs.to_bytes(8, "little")

    def _kept(self, files: Sequence[tuple[Fault, Path, bytes]], number: int, sentence: str) -> str:
        """Keep a mutant, restore the file of the corpus, and name both."""
        fault, path, before, changed = self._mutant(files, number)
        path.write_bytes(before)
        kept = self.folder / "kept" / f"{self.form.replace(' ', '_')}_{number}_{path.name}"
        kept.parent.mkdir(exist_ok=True)
        kept.write_bytes(changed)
        return f"{self.form}, mutant {number} of {fault.what!r}: {sentence}"


def fault_of(place: Path, reading: str) -> str:
    """What is wrong with the way in which a file is refused; "" if it is read, or refused by a
    documented error that names it.
    """
    try:
        read_by_delineate(place, reading)
    except documented() as error:
        if place.name not in str(error) and place.parent.name not in str(error):
            return f"no file is named: {' '.join(str(error).split())}"
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    return ""


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _end(status: int) -> str:
    if -status == signal.SIGPROF:
        return f"more than {MOST_CPU_S} s of computing"
    if -status == signal.SIGALRM:
        return f"more than {MOST_WAIT_S} s"
    return f"the process ended with {status}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--form", choices=FORMS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=KINDS, default="bytes")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="for each format")
    parser.add_argument("--engine", choices=("random", "coverage"), default="random")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    for form in [given.form] if given.form else FORMS:
        end_s = time.monotonic() + 60 * given.minutes
        if given.engine == "coverage":
            *found, done = guided.rounds(form, given.inputs, given.folder, given.seed, end_s)
            for sentence in found:
                print(f"    {sentence}", flush=True)
            print(f"{form} (coverage): {done} mutants, {len(found)} not as documented", flush=True)
            continue
        count, one = 0, Round(form, given.inputs, given.folder, given.seed, given.kind, end_s)
        for sentence in one.wrong():
            count += 1
            print(f"    {sentence}", flush=True)
        print(f"{form} ({given.kind}): {one.done} mutants, {count} not as documented", flush=True)


if __name__ == "__main__":
    main()
