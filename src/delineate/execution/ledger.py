"""Ledgers: the journal of very many cases, of which only numbers are in memory.

A ledger is the file ``NAME`` of a folder, with one line (JSON with a checksum) for each case that
was finished or failed, in the form of the journal of ``predict``. Every shard appends to its own
file. In memory are about 50 bytes for each line: hashes of the id and of what the result was made
of, its size and its place in the file. So ids are known by 64 bits of a hash: among a million, two
are equal by chance once in 40 million lists, and a result of another case is never used, because
what it was made of includes the id.

A line is with the system when the case is finished, and on the disk a second later: a kill loses
nothing, and a power cut costs the cases of a second, which are done again.
"""

from __future__ import annotations

import json
import re
import time
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ..core import atomic
from ..core.errors import InputError
from ..core.inputs import is_intact, json_line, lines_of, object_in_line, parse_json, refuse_special
from ..core.progress import Say, unsaid
from .shards import WHOLE, Shard, files_of_shards

NAME, BEGUN = "predictions.jsonl", ".begun.jsonl"
MOST_DEAD = 0.1  # share of the lines that others replace, above which the file is written again
_FIELDS = {"key": "Q", "state": "Q", "nbytes": "q", "at": "d", "file": "q", "offset": "q"}

# The beginning and the end of the line of a result, as ``json_line`` writes it.
_HEAD = re.compile(rb'\{"at": ([0-9.]+), "bytes": (\d+), "case": ("(?:[^"\\]|\\.)*"), "entry": \{')
_STATE = re.compile(rb', "state": "([0-9a-f]{16})", "delineate_checksum"')


def hashed(text: str) -> int:
    """64 bits of a hash of a text."""
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")


class Seen:
    """Which texts came before, by 8 bytes each.

    >>> seen = Seen()
    >>> [seen.add(text) for text in ("a", "b", "a")]
    [False, False, True]
    """

    def __init__(self) -> None:
        self._runs: list[np.ndarray[Any, Any]] = []  # sorted, each at most half of the one before
        self._new: set[int] = set()

    def add(self, text: str) -> bool:
        """Whether the text was added before."""
        key = hashed(text)
        if key in self._new or any(_place(run, key) is not None for run in self._runs):
            return True
        self._new.add(key)
        if len(self._new) >= 1 << 14:
            run = np.sort(np.fromiter(self._new, np.uint64, len(self._new)))
            self._new = set()
            while self._runs and len(self._runs[-1]) <= 2 * len(run):
                run = np.sort(np.concatenate([self._runs.pop(), run]))
            self._runs.append(run)
        return False


class _Index:
    """Of one kind of lines: the last line of each case."""

    def __init__(self) -> None:
        self._grown = {name: array(code) for name, code in _FIELDS.items()}
        self._columns: dict[str, np.ndarray[Any, Any]] = {}
        self.dead = 0

    def add(self, *values: Any) -> None:
        for column, value in zip(self._grown.values(), values, strict=True):
            column.append(value)

    def sort(self) -> None:
        """After the last ``add``: the last line of each case remains."""
        columns = {name: np.frombuffer(c, c.typecode) for name, c in self._grown.items()}
        order = np.lexsort((columns["offset"], columns["at"], columns["key"]))
        keys = columns["key"][order]
        last = np.append(keys[1:] != keys[:-1], True)[: len(keys)]
        self.dead = len(keys) - int(last.sum())
        self._columns = {name: column[order[last]] for name, column in columns.items()}
        self._grown = {}

    def __len__(self) -> int:
        return len(self._columns["key"])

    def find(self, key: int) -> dict[str, Any] | None:
        place = _place(self._columns["key"], key)
        return None if place is None else {k: c[place] for k, c in self._columns.items()}

    def column(self, name: str) -> np.ndarray[Any, Any]:
        return self._columns[name]

    def later_than(self, other: _Index) -> np.ndarray[Any, Any]:
        """Which lines are later than that of ``other`` for the case, if it has one."""
        mine, theirs = self._columns, other._columns
        if not len(other):
            return np.ones(len(self), bool)
        place = np.searchsorted(theirs["key"], mine["key"]).clip(max=len(other) - 1)
        known = theirs["key"][place] == mine["key"]
        is_later: np.ndarray[Any, Any] = ~known | (mine["at"] > theirs["at"][place])
        return is_later


def _numbers_of(line: bytes | None) -> dict[str, Any]:
    """Of the line of a result only what an index holds, without parsing the entry; others as they
    are.
    """
    if line is not None and (head := _HEAD.match(line)) and is_intact(line):
        state = _STATE.search(line, len(line) - 100)
        if state is not None:
            at, nbytes, case = head.groups()
            name = parse_json(case) if b"\\" in case else case[1:-1].decode()
            names = {"at": float(at), "bytes": int(nbytes), "case": name}
            return {**names, "entry": {}, "state": state[1].decode()}
    return object_in_line(line)


def _place(keys: np.ndarray[Any, Any], key: int) -> int | None:
    # One number is found faster among plain integers than by NumPy.
    numbers = keys.data
    at = bisect_left(numbers, key)
    return at if at < len(numbers) and numbers[at] == key else None


class Ledger:
    """The ledger in the folder ``out``; a context manager, in which lines are added.

    Args:
        out: the folder; it need not exist, unless lines are added.
        shard: whose file is written; lines of all are read.
        say: receives a sentence about damaged lines, whose cases are done again.
        each: called after each line that is added.

    Raises:
        InputError: a file is not a ledger.
    """

    def __init__(
        self,
        out: Path,
        shard: Shard = WHOLE,
        say: Say = unsaid,
        each: Callable[[], object] = lambda: None,
    ):
        self._out, self._shard, self._say, self._each = out, shard, say, each
        self._own = out / shard.named(NAME)
        self._files: list[Path] = []
        self._stack: list[atomic.Appender] = []
        self._replaced, self._opened = 0, time.time()
        self._load()

    def _load(self) -> None:
        self._results, self._failures, self._outdated = _Index(), _Index(), 0
        self._files = [
            p for p in (self._out / NAME, *files_of_shards(self._out, NAME)) if p.is_file()
        ]
        for number, path in enumerate(self._files):
            for offset, line in self._read(path, _numbers_of):
                index = self._failures if "error" in line else self._results
                self._outdated += self._is_outdated(line)
                index.add(
                    hashed(line["case"]),
                    int(line.get("state", "0"), 16),
                    line.get("bytes", 0),
                    line.get("at", 0.0),
                    number,
                    offset,
                )
        for index in (self._results, self._failures):
            index.sort()
        self._begun = self._marks()
        self._died = {key: at for key, (at, is_sent) in self._begun.items() if not is_sent}

    def _is_outdated(self, line: Mapping[str, Any]) -> bool:
        return "of_list" in line and bool(line.get("at", 0) < self._opened)

    def _read(
        self,
        path: Path,
        content: Callable[[bytes | None], dict[str, Any]] = object_in_line,
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """Offset and content of each line of a ledger."""
        refuse_special(path)
        damaged = found = 0
        with path.open("rb") as file:
            for offset, line in lines_of(file):
                try:
                    data = content(line)
                    if not isinstance(data.get("case"), str) or not {"error", "entry"} & {*data}:
                        raise ValueError("no line of a ledger")
                except ValueError:
                    damaged += bool(line is None or line.strip())
                    continue
                found += 1
                yield offset, data
        if damaged > max(1, found):
            raise InputError(f"{damaged} of its lines are no lines of a journal", path=path)
        if damaged:
            words = "1 damaged line is" if damaged == 1 else f"{damaged} damaged lines are"
            self._say(f"{path}: {words} left out")

    def _marks(self) -> dict[int, tuple[float, bool]]:
        """Hash of the id -> when work on the case began, and whether it was sent to a worker, of
        calls that did not end.
        """
        marks = {}
        for path in (self._out / BEGUN, *files_of_shards(self._out, BEGUN)):
            if not path.is_file():
                continue
            with path.open("rb") as file:
                for _, line in lines_of(file):
                    try:
                        data = object_in_line(line)
                        mark = (float(data["at"]), "sent" in data)
                        marks[hashed(str(data["case"]))] = mark
                    except (ValueError, KeyError, TypeError):
                        continue  # a kill leaves an incomplete line
        return marks

    @property
    def done(self) -> int:
        """Number of cases with results."""
        return len(self._results)

    @property
    def failed(self) -> int:
        """Number of cases whose last try failed."""
        return int(self._failures.later_than(self._results).sum())

    def failures(self) -> dict[str, str]:
        """Case -> error, of the cases whose last try failed, in the order of the files."""
        found, later = {}, self._failures.later_than(self._results)
        for number, path in enumerate(self._files):
            mine = later & (self._failures.column("file") == number)
            with path.open("rb") as file:
                for offset in np.sort(self._failures.column("offset")[mine]):
                    file.seek(int(offset))
                    line = object_in_line(next(lines_of(file))[1])
                    found[line["case"]] = str(line["error"])
        return found

    @property
    def times(self) -> list[float]:
        """When the latest cases, at most 10,000, were finished or had failed."""
        both = [index.column("at") for index in (self._results, self._failures)]
        return [float(at) for at in np.sort(np.concatenate(both))[-10_000:]]

    def latest(self, count: int) -> list[dict[str, Any]]:
        """The entries of the cases that were finished last, at most ``count``."""
        order = np.argsort(self._results.column("at"))[-count:]
        files, offsets = (self._results.column(name)[order] for name in ("file", "offset"))
        found = []
        for number in np.unique(files):
            with self._files[int(number)].open("rb") as file:
                for offset in np.sort(offsets[files == number]):
                    file.seek(int(offset))
                    found.append(object_in_line(next(lines_of(file))[1])["entry"])
        return found

    def result(self, case: str) -> tuple[int, int] | None:
        """What the result of a case was made of (``hashed``), and the bytes of its files; None if
        it has none.
        """
        found = self._results.find(hashed(case))
        return None if found is None else (int(found["state"]), int(found["nbytes"]))

    def line(self, case: str) -> dict[str, Any] | None:
        """The line with the result of a case; None if it has none."""
        found = self._results.find(hashed(case))
        if found is None:
            return None
        with self._files[int(found["file"])].open("rb") as file:
            file.seek(int(found["offset"]))
            line = object_in_line(next(lines_of(file))[1])
        return line if line["case"] == case else None

    def died_at(self, case: str) -> bool:
        """Whether the process of an earlier call died while it worked on this case."""
        key = hashed(case)
        begun = self._died.get(key)
        lines = [index.find(key) for index in (self._results, self._failures)]
        return begun is not None and all(one is None or one["at"] < begun for one in lines)

    def begun(self, case: str) -> bool:
        """Whether an earlier call that did not end worked on this case, or finished it."""
        return hashed(case) in self._begun

    def lines(self) -> Iterator[dict[str, Any]]:
        """The last line of each case, in the order of the files: its result, and its failure if
        that is later.
        """
        for number, path in enumerate(self._files):
            kept = self._kept(number)
            at = 0
            for offset, line in self._read(path):
                while at < len(kept) and kept[at] < offset:
                    at += 1
                if at < len(kept) and kept[at] == offset:
                    yield line

    def _kept(self, number: int) -> np.ndarray[Any, Any]:
        """The sorted offsets of the lines of file ``number`` that others do not replace."""
        results, failures = self._results, self._failures
        later = failures.later_than(results) & (failures.column("file") == number)
        mine = results.column("offset")[results.column("file") == number]
        return np.sort(np.concatenate([mine, failures.column("offset")[later]]))

    # ---- adding ----

    def __enter__(self) -> Ledger:
        self._stack = [
            atomic.Appender(self._own),
            atomic.Appender(self._out / self._shard.named(BEGUN)),
        ]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for one in reversed(self._stack):
            one.__exit__(kind, error, trace)
        self._stack = []

    def begin(self, cases: Iterable[str], sent: bool = False) -> None:
        """Record that work on these cases begins.

        Args:
            cases: their ids.
            sent: whether they are sent to workers, so that the death of this process is not theirs.

        Raises:
            OutputError: the record cannot be written.
        """
        now = time.time()
        mark = {"at": now, "sent": True} if sent else {"at": now}
        lines = [json.dumps({"case": case, **mark}) for case in cases]
        if lines:
            self._stack[1].put("\n".join(lines))

    def put(
        self,
        case: str,
        state: int,
        entry: Mapping[str, Any],
        files: Mapping[str, str] = {},
        nbytes: int = 0,
    ) -> None:
        """Record a finished case.

        Args:
            case: its id.
            state: what the result was made of (``hashed``).
            entry: plain data about it.
            files: path in the folder -> SHA-256, of its files, which are on the disk already.
            nbytes: of these files together.

        Raises:
            OutputError: the ledger cannot be written.
        """
        line = {"case": case, "state": f"{state:016x}", "bytes": nbytes, "files": dict(files)}
        self._append(case, {**line, "entry": dict(entry), "at": time.time()})

    def fail(self, case: str, why: str, of_list: bool = False) -> None:
        """Record that a case failed; an earlier result of it stays.

        Args:
            case: its id, or the name of a line of a list without one.
            why: a sentence.
            of_list: whether the list itself is wrong; the record ends with the next call.

        Raises:
            OutputError: the ledger cannot be written.
        """
        mark = {"of_list": True} if of_list else {}
        self._append(case, {"case": case, "at": time.time(), "error": why, **mark})

    def _append(self, case: str, line: dict[str, Any]) -> None:
        index = self._failures if "error" in line else self._results
        self._replaced += index.find(hashed(case)) is not None
        self._stack[0].put(json_line(line))
        self._each()

    def compact(self) -> None:
        """After the last line: keep the last line of each case, if that saves much or if the files
        of shards can be gathered; and end the record of what was begun.

        Raises:
            OutputError: the ledger cannot be written.
        """
        alive = self.done + self.failed
        dead = self._replaced + self._results.dead + self._failures.dead
        parts = files_of_shards(self._out, NAME) if self._shard.is_whole else []
        if parts or self._outdated or dead > MOST_DEAD * max(1, alive):
            self._load()
            lines = self.lines() if self._shard.is_whole else self._lines_of_own()
            kept = (json_line(line) for line in lines if not self._is_outdated(line))
            atomic.write_lines(self._own, kept)
            for one in parts:
                one.unlink(missing_ok=True)
        begun = files_of_shards(self._out, BEGUN) if self._shard.is_whole else []
        for one in (self._out / self._shard.named(BEGUN), *begun):
            one.unlink(missing_ok=True)

    def _lines_of_own(self) -> Iterator[dict[str, Any]]:
        number = self._files.index(self._own)
        kept = {int(offset) for offset in self._kept(number)}
        return (line for offset, line in self._read(self._own) if offset in kept)
