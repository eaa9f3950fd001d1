"""Summarise: the results of predictions as one table (CSV, Parquet) and the report of the archive.

It reads the records of a folder, also of one in which a call works now; no scan and no mask is
opened. Records are read line by line, several times, and of each result only its volumes are in
memory, so that the results of a work list of any length fit.
"""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...cohorts.work_list import ABOUT
from ...core import atomic
from ...core.errors import InputError
from ...core.inputs import read_json_if_any
from ...core.outputs import RECORD as OWN_FILES
from ...core.outputs import Originals
from ...core.prediction import RECORD
from ...core.progress import Say, unsaid
from ...execution.ledger import Ledger
from ...execution.shards import WHOLE
from ...extras import is_installed
from ...reporting.archive_page import Machines, Outlier, Volumes, render
from ..options import PredictOptions
from .journal import Journal, journals_of

TABLE, PARQUET, REPORT = "summary.csv", "summary.parquet", "summary.html"
MOST_OUTLIERS = 20
PICTURES = "montages"
ROWS = 10_000  # of Parquet at a time
AFTER = (
    "flags",
    "flag_words",
    "seconds",
    "peak_memory_mb",
    "device",
    "machine",
    "not_written",
    "error",
)
Row = dict[str, Any]


@dataclass(frozen=True)
class Summary:
    """What was summarised: numbers of cases, and the files that were written."""

    done: int
    failed: int
    written: tuple[Path, ...]


def summarise(
    out: str | Path, target: str | Path | None = None, say: Say = unsaid, overwrite: bool = False
) -> Summary:
    """Write the table of all results in the folder ``out``, and the report of the archive.

    Args:
        out: a folder of ``predict``.
        target: the folder for summary.csv, summary.parquet (if pyarrow is installed) and
            summary.html; by default ``out``.
        say: receives a sentence about damaged lines, and about what is left out.
        overwrite: also replace files that this program did not write; never those that it reads.

    Raises:
        InputError: it has no records of predictions, or they cannot be read.
        OutputError: nothing can be written, or an output is a file of somebody else.
    """
    folder = Path(out)
    record = _record(folder)
    place = atomic.make_folder(folder if target is None else target)
    targets = [place / name for name in (TABLE, PARQUET, REPORT)]
    inside = (p for p in folder.iterdir() if p.suffix in (".json", ".jsonl"))
    read = [path for path in inside if path.name != OWN_FILES]
    kept = Originals([*read, folder / PICTURES]).kept(targets)
    with kept, atomic.recording(place, targets, overwrite):
        return _written(folder, record, place, say)


def _written(folder: Path, record: Mapping[str, Any], place: Path, say: Say) -> Summary:
    """Write the table and the report of ``folder`` to ``place``."""
    structures = [str(label["name"]) for label in record.get("labels", ())]
    volumes, machines = Volumes(structures), Machines()
    done = failed = 0
    for _, entry, _ in _results(folder, record, say):
        done, failed = done + (entry is not None), failed + (entry is None)
        if entry is not None:
            volumes.add(_about(entry), entry.get("volumes_ml", {}))
            machines.add(str(entry.get("machine", "")), entry.get("seconds", {}).get("total"))
    ranges, outliers = volumes.ranges(), _Outliers()

    def lines() -> Iterator[str]:
        yield _line([*_columns(structures)])
        for case, entry, error in _results(folder, record):
            row = _row(case, entry, error, record, structures)
            outliers.look(case, row, ranges)
            yield _line([row.get(name) for name in _columns(structures)])

    atomic.write_lines(place / TABLE, lines())
    written = [place / TABLE]
    if is_installed("pyarrow"):
        _write_parquet(place / PARQUET, folder, record, structures)
        written.append(place / PARQUET)
    else:
        say("no Parquet is written: the package pyarrow is not installed")
    shown = [_with_picture(one, folder) for one in outliers.found()]
    atomic.write_text(place / REPORT, render(volumes, machines, shown, record, done, failed))
    return Summary(done, failed, (*written, place / REPORT))


def _record(folder: Path) -> dict[str, Any]:
    found = read_json_if_any(folder / RECORD)
    if found is None and not journals_of(folder):
        raise InputError(f"has no records of predictions ({RECORD})", path=folder)
    if found is not None and not isinstance(found, dict):
        raise InputError("is no record of predictions", path=folder / RECORD)
    return found or {}


def _results(
    folder: Path, record: Mapping[str, Any], say: Say = unsaid
) -> Iterator[tuple[str, Row | None, str]]:
    """Case, entry and error of each result; of a case that failed, without an entry."""
    if "cases_in" in record:
        ledger = Ledger(folder, WHOLE, say)
        failed = ledger.failures()
        for line in ledger.lines():
            if "entry" in line and line["case"] not in failed:
                yield line["case"], line["entry"], ""
        yield from ((case, None, error) for case, error in failed.items())
        return
    journal = Journal(folder, "", PredictOptions(), say)
    cases = dict(record.get("cases", {})) | journal.entries
    cases |= {case: {"error": error} for case, error in journal.failures.items()}
    for case, entry in cases.items():
        is_failed = "error" in entry
        yield case, None if is_failed else entry, str(entry["error"]) if is_failed else ""


def _about(entry: Mapping[str, Any]) -> dict[str, Any]:
    found = entry.get("about", {})
    return {k: v for k, v in found.items() if k in ABOUT} if isinstance(found, dict) else {}


def _columns(structures: list[str]) -> list[str]:
    return ["case", *ABOUT, *(f"{name} ml" for name in structures), *AFTER]


def _row(
    case: str, entry: Row | None, error: str, record: Mapping[str, Any], structures: list[str]
) -> Row:
    if entry is None:
        return {"case": case, "error": error}
    volumes, flags = entry.get("volumes_ml", {}), entry.get("flags", ())
    row: Row = {"case": case, **{key: _about(entry).get(key) for key in ABOUT}}
    row |= {f"{name} ml": volumes.get(name) for name in structures}
    row |= {"flags": len(flags), "flag_words": "; ".join(str(one.get("words")) for one in flags)}
    row |= {"seconds": entry.get("seconds", {}).get("total")}
    row |= {"peak_memory_mb": entry.get("peak_memory_mb"), "device": record.get("device")}
    row |= {"machine": entry.get("machine")}
    return row | {"not_written": "; ".join(entry.get("not_written", {})), "error": ""}


def _line(values: list[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(values)
    return text.getvalue()


class _Outliers:
    """The cases whose volumes are farthest outside."""

    def __init__(self) -> None:
        self._found: list[Outlier] = []

    def look(self, case: str, row: Row, ranges: Mapping[str, tuple[float, float]]) -> None:
        for name, (middle, spread) in ranges.items():
            value = row.get(f"{name} ml")
            if value is not None and spread and abs(value - middle) > 5 * spread:
                far = abs(value - middle) / spread
                self._found.append(Outlier(case, name, float(value), middle, far))
        if len(self._found) > 50 * MOST_OUTLIERS:
            self._found = self.found()

    def found(self) -> list[Outlier]:
        return sorted(self._found, key=lambda one: -one.far)[:MOST_OUTLIERS]


def _with_picture(one: Outlier, folder: Path) -> tuple[Outlier, str]:
    path = folder / PICTURES / f"{one.case}.png"
    return one, base64.b64encode(path.read_bytes()).decode() if path.is_file() else ""


def _write_parquet(
    path: Path, folder: Path, record: Mapping[str, Any], structures: list[str]
) -> None:
    import pyarrow as arrow
    from pyarrow import parquet

    numbers = {f"{name} ml" for name in structures} | {"seconds", "peak_memory_mb"}

    def kind(name: str) -> Any:
        if name in numbers:
            return arrow.float64()
        return arrow.int32() if name == "flags" else arrow.string()

    schema = arrow.schema([(name, kind(name)) for name in _columns(structures)])

    def put(writer: Any, rows: list[Row]) -> None:
        texts = [name for name in schema.names if schema.field(name).type == arrow.string()]
        for row in rows:
            row |= {n: None if row.get(n) is None else str(row[n]) for n in texts}
        writer.write_table(arrow.Table.from_pylist(rows, schema=schema))

    with atomic.replacing(path) as temporary, parquet.ParquetWriter(temporary, schema) as writer:
        rows: list[Row] = []
        for case, entry, error in _results(folder, record):
            rows.append(_row(case, entry, error, record, structures))
            if len(rows) == ROWS:
                put(writer, rows)
                rows = []
        put(writer, rows)


__all__ = ["Summary", "summarise"]
