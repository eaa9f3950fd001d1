"""The journal of predictions: ``OUT/predictions.jsonl``, one line for each finished case.

A line is on the disk after the case's files are. It states what the result was made of (the bytes
of the scan, the model, the options that can change a mask) and the SHA-256 of each file written. So
a call that was killed loses the case at work, and the same call does only what is missing, changed
or damaged. ``predictions.json`` is written from the journal at the end.

A case that failed has a line with its error, for those who watch; it is tried again. Each shard
has a journal of its own, ``OUT/predictions.3-of-100.jsonl``, and all of them are read. Of several
lines for one case the one written last counts. A call without shards gathers all in one file.

``OUT/.begun.jsonl`` has a line for each case that was begun, while a call runs. In that of a call
whose process died, the cases that were not finished are those whose scan may have crashed its
reader.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from ...core import atomic
from ...core.errors import DelineateError, InputError
from ...core.inputs import json_text, read_json_lines, sha256_of
from ...core.manifest import ABSENT, Case
from ...core.progress import Say, unsaid
from ...core.scores import without_nan
from ...execution.ledger import BEGUN, NAME
from ...execution.local import Outcome
from ...execution.shards import Shard, files_of_shards
from ...formats.files import files_of
from ..options import ArchiveOptions, EngineOptions, PredictOptions

# Options that do not change a mask: where and with how much memory it is computed, which scans, and
# how they come and the results go.
IMMATERIAL = frozenset(
    {"device", "ram_bytes", "vram_bytes", "channels", "only", "again", "overwrite", "untrusted"}
    | {"spool_bytes", *(one.name for one in fields(EngineOptions))}
    | {one.name for one in fields(ArchiveOptions)}
)
# Options that together name the files of a case, in more than one way.
FORMS = ("form", "dicom_seg", "rtstruct")

Entry = dict[str, Any]


class Journal:
    """The journal in the folder ``out``, for one model and its options.

    Args:
        out: the folder of the results; it need not exist.
        model: the model's id.
        options: of this call.
        say: receives a sentence about damaged lines; their cases are segmented again.

    Raises:
        InputError: the file is not a journal.
    """

    def __init__(self, out: Path, model: str, options: PredictOptions, say: Say = unsaid):
        self._out, self._shard = out, Shard.parsed(options.shard)
        self._made_by = made_by(model, options)
        self._lines: dict[str, Entry] = {}
        self._failures: dict[str, Entry] = {}
        self._own: set[str] = set()
        for path in journals_of(out):
            for line in read_json_lines(path, say):
                self._read(line, is_own=path.name == self._shard.named(NAME))
        marks = [m for path in _all_of(out, BEGUN) for m in read_json_lines(path)]
        self._begun = {str(mark["case"]): mark.get("replaces") for mark in marks if "case" in mark}

    def _read(self, line: Entry, is_own: bool) -> None:
        """Keep a line of this shard if it is the last one for its case. Those of another form are
        no results.
        """
        case = str(line.get("case", ""))
        known = self._failures if "error" in line else self._lines
        is_result = isinstance(line.get("entry"), dict) or "error" in line
        if "case" not in line or not is_result or not self._shard.has(case):
            return
        if line.get("at", 0) >= known.get(case, {}).get("at", 0):
            known[case] = line
            (self._own.add if is_own else self._own.discard)(case)

    @property
    def entries(self) -> dict[str, Entry]:
        """The case's entry of ``predictions.json``, for all finished cases of all calls."""
        return {case: line["entry"] for case, line in self._lines.items()}

    def latest(self, count: int) -> list[Entry]:
        """The entries of the cases that were finished last, at most ``count``."""
        lines = sorted(self._lines.values(), key=lambda line: line.get("at", 0.0))
        return [line["entry"] for line in lines[-count:]]

    @property
    def failures(self) -> dict[str, str]:
        """Case -> error, of the cases whose last try failed."""
        return {case: str(line["error"]) for case, line in self._failed().items()}

    @property
    def times(self) -> list[float]:
        """When each case was finished or had failed, in seconds since 1970."""
        lines = (*self._lines.values(), *self._failures.values())
        return [line["at"] for line in lines if "at" in line]

    def _failed(self) -> dict[str, Entry]:
        return {
            case: line
            for case, line in self._failures.items()
            if line.get("at", 0) > self._lines.get(case, {}).get("at", 0)
        }

    def changed(self, case: Case) -> list[Path]:
        """The files of a finished case that are not as they were written, or are missing."""
        files = self._lines.get(case.id, {}).get("files", {})
        return [
            self._out / name
            for name, digest in files.items()
            if sha256_of(self._out / name) != digest
        ]

    def finished(self, case: Case) -> Entry | None:
        """The entry of a case that was made by the same model and options from the same bytes; None
        if there is none.
        """
        line = self._lines.get(case.id)
        if line is None or line.get("made_by") != self._made_by or line["entry"].get("not_written"):
            return None
        try:
            same = inputs_sha256(case) == line["entry"].get("input_sha256")
        except InputError:
            return None  # the case will say why it cannot be read
        return dict(line["entry"]) if same else None

    def died_at(self, case: Case) -> bool:
        """Whether the process of an earlier call ended, or died, while it worked on this case."""
        return case.id in self._begun and self._begun[case.id] == self._digest(case.id)

    def begin(self, case: Case) -> None:
        """Record that work on a case begins.

        Raises:
            OutputError: the record cannot be written.
        """
        mark = {"case": case.id, "replaces": self._digest(case.id)}
        atomic.append_line(self._out / self._shard.named(BEGUN), json_text(mark))

    def _digest(self, case: str) -> str:
        """Of the case's line, which finishing it replaces; "" without one."""
        if case not in self._lines:
            return ""
        return hashlib.sha256(json_text(self._lines[case]).encode()).hexdigest()

    def add(self, case: str, entry: Entry, files: Iterable[Path]) -> None:
        """Record a finished case; ``files`` are its results, on the disk already.

        Raises:
            OutputError: the journal cannot be written.
        """
        self.put(case, entry, digests_of(self._out, files))

    def put(
        self, case: str, entry: Entry, files: Mapping[str, str], nbytes: int | None = None
    ) -> None:
        """As ``add``, with the SHA-256 of each file, by its path in the folder; ``nbytes`` is for
        ledgers.
        """
        line = {"case": case, "made_by": self._made_by, "files": dict(files)}
        self._put(case, line | {"entry": without_nan(entry)})

    def amend(self, case: str, entry: Entry) -> None:
        """Replace the entry of a finished case whose files are as they were.

        Raises:
            OutputError: the journal cannot be written.
        """
        self._put(case, {**self._lines[case], "entry": without_nan(entry)})

    def failed(self, case: str, error: DelineateError, seconds: float = 0.0) -> Outcome[Entry]:
        """Record that a case failed, and give this as its outcome; an earlier result of it stays.

        Raises:
            OutputError: the journal cannot be written.
        """
        self._failures[case] = {"case": case, "at": time.time(), "error": str(error)}
        self._append(self._failures[case])
        return Outcome(case, None, error, seconds)

    def _put(self, case: str, line: Entry) -> None:
        self._lines[case] = line = {**line, "at": time.time()}
        self._own.add(case)
        self._append(line)

    def _append(self, line: Entry) -> None:
        atomic.append_line(self._out / self._shard.named(NAME), json_text(line))

    def compact(self) -> None:
        """Keep one line for each case, and the marks of cases at which a process died and that are
        not finished yet. Without shards, their files end here.
        """
        kept = {case: line for case, line in self._begun.items() if line == self._digest(case)}
        marks = [{"case": c, "replaces": d} for c, d in kept.items() if self._shard.has(c)]
        self._rewrite(BEGUN, marks)
        lines = {
            c: line for c, line in self._lines.items() if self._shard.is_whole or c in self._own
        }
        self._rewrite(NAME, [*lines.values(), *self._failed().values()])

    def _rewrite(self, name: str, lines: list[Entry]) -> None:
        path = self._out / self._shard.named(name)
        if lines:
            atomic.write_text(path, "".join(json_text(line) + "\n" for line in lines))
        ended = files_of_shards(self._out, name) if self._shard.is_whole else []
        for one in ended if lines else [path, *ended] if name == BEGUN else []:
            with contextlib.suppress(OSError):
                one.unlink()


def made_by(model: str, options: PredictOptions) -> str:
    """A digest of the model's id and of the options that can change a mask."""
    given = {k: v for k, v in vars(options).items() if k not in (*IMMATERIAL, *FORMS)}
    given |= {"mask_form": options.mask_form, "objects": options.objects}
    content = json.dumps([model, given], sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()


def journals_of(out: Path) -> list[Path]:
    """The journals in the folder ``out``: that of calls without shards, and those of shards."""
    return _all_of(out, NAME)


def _all_of(out: Path, name: str) -> list[Path]:
    return [path for path in (out / name, *files_of_shards(out, name)) if path.is_file()]


def digests_of(out: Path, files: Iterable[Path]) -> dict[str, str]:
    """Path in the folder ``out`` -> SHA-256, of files in it."""
    return {str(path.relative_to(out)): sha256_of(path) for path in files}


def inputs_sha256(case: Case) -> dict[str, str]:
    """Every file that is read for the scan -> SHA-256 of its bytes, as 64 hex digits.

    Raises:
        InputError: one of them cannot be read.
    """
    paths = {path for image in case.images if image != ABSENT for path in files_of(image)}
    found = {}
    for path in sorted(paths):
        digest = sha256_of(path)
        if not digest:
            raise InputError("cannot be read", case=case.id, path=path)
        found[str(path)] = digest
    return found


__all__ = ["BEGUN", "NAME", "Journal", "digests_of", "inputs_sha256", "journals_of", "made_by"]
