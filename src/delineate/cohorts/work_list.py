"""Work lists: the scans to segment as lines of a file of any length, never whole in memory.

JSON Lines (``.jsonl``, ``.ndjson``; one object a line), Parquet and CSV (a row each), here or in a
store (``formats.stores``), and patterns such as ``scans/*.nii.gz``, each match of which is a scan.
A line that cannot be used is one failure, and the others are read. Columns:

    id                    of the case, unique; names its files
    image                 path or URL of the scan, relative to the list, or the address of a series
                          in an archive (``formats.dicom.remote``); or with several channels
    images                an object channel -> path, or a list in the order of the model's channels
    <channel>             in place of both: a column for each channel
    series                SeriesInstanceUID in a DICOM folder or study with several
    sha256, bytes         of the image, which is refused if it differs
    scanner, year, sex, age   for the report of the archive; kept with the results

Other columns are ignored. No scan is opened here.
"""

from __future__ import annotations

import contextlib
import csv
import glob
import io
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from ..core.errors import DelineateError, InputError, LayoutError, UsageError
from ..core.inputs import lines_of, object_in_line
from ..core.manifest import ABSENT, Case, Source
from ..core.terms import match_channels
from ..extras import require_extra
from ..formats import stores
from ..formats.dicom.remote import Address, is_remote
from ..formats.files import stem

ENDINGS = (".jsonl", ".ndjson", ".parquet", ".csv")
ABOUT = ("scanner", "year", "sex", "age")
MOST_ID_BYTES = 200  # file names have at most 255, with their endings
MOST_ABOUT = 100  # characters
ROWS = 4096  # of Parquet at a time
_UNFIT = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class Row:
    """A usable line.

    Args:
        case: the scan.
        about: what is known of it, of the columns ``ABOUT``.
        sha256, nbytes: that the list states of its image; "" and None if it does not.
        line: the list and the number of the line.
    """

    case: Case
    about: Mapping[str, Any] = field(default_factory=dict)
    sha256: str = ""
    nbytes: int | None = None
    line: str = ""

    @property
    def name(self) -> str:
        """The id of its case."""
        return self.case.id


@dataclass(frozen=True)
class Unusable:
    """A line that cannot be used: the list and the number of the line, and why."""

    name: str
    error: DelineateError


def is_work_list(place: str | Path) -> bool:
    """Whether an input is a work list or a pattern. A ``manifest.jsonl`` with its first line is a
    cohort, and no work list.

    >>> is_work_list("archive.parquet"), is_work_list("scans/*.nii.gz"), is_work_list("ct.nii.gz")
    (True, True, False)
    """
    text = stores.local(place)
    if _is_pattern(text):
        return True
    ending = os.path.splitext(text.partition("?")[0] if stores.is_url(text) else text)[1].lower()
    if ending not in ENDINGS:
        return stores.is_url(text)
    if ending != ".jsonl" or stores.is_url(text) or not os.path.isfile(text):
        return True
    with open(text, "rb") as file:
        first = next(lines_of(file), (0, b""))[1]
    return b'"delineate_manifest"' not in (first or b"")


def _is_pattern(text: str) -> bool:
    plain = text.partition("?")[0] if text.lower().startswith("http") else text
    return stores.MAGIC.search(plain) is not None and not os.path.lexists(text)


def rows(place: str | Path, channels: Sequence[str]) -> Iterator[Row | Unusable]:
    """The lines of a work list, one after another.

    Args:
        place: path, URL or pattern.
        channels: of the model; each scan has a source for each, or one with all of them.

    Raises:
        InputError: the list cannot be read, or has no scan.
        UsageError: a package is missing.
    """
    text = stores.local(place)
    if _is_pattern(text):
        yield from map(_matched, _matches(text))
        return
    ending = os.path.splitext(text.partition("?")[0] if stores.is_url(text) else text)[1].lower()
    if ending not in ENDINGS:  # one object
        yield _matched((stem(text.partition("?")[0]), text))
        return
    folder = _folder_of(text)
    name = stores.shown(text).rpartition("/")[2]
    line = ""
    with stores.opened(text) as file:
        for number, found in _objects(file, ending, text):
            line = f"{name} line {number}"
            if isinstance(found, ValueError):
                yield Unusable(line, InputError(f"cannot be read ({found})", path=line))
                continue
            try:
                yield _row(found, folder, channels, line)
            except DelineateError as error:
                said = f"{error.message} (id {found.get('id')!r:.80})"
                yield Unusable(line, InputError(said, path=line))
    if not line:
        raise InputError("lists no scan", path=stores.shown(text))


def count_of(place: str | Path) -> int | None:
    """The number of lines of a list on this machine, in a second for millions; None if that is not
    known before the end. Lines that are empty count.

    Raises:
        InputError: it is no Parquet. UsageError: a package is missing.
    """
    text = stores.local(place)
    if stores.is_url(text) or _is_pattern(text) or not os.path.isfile(text):
        return None
    with open(text, "rb") as file:
        if text.lower().endswith(".parquet"):
            with _table(file, text) as table:
                return int(table.metadata.num_rows)
        lines, last = 0, b"\n"
        for part in iter(lambda: file.read(1 << 20), b""):
            lines, last = lines + part.count(b"\n"), part[-1:]
        return max(0, lines + (last != b"\n") - text.lower().endswith(".csv"))


def _folder_of(text: str) -> str:
    if stores.is_url(text):
        return text.partition("?")[0].rpartition("/")[0]
    return os.path.dirname(os.path.abspath(text))


def _objects(
    file: BinaryIO, ending: str, place: str
) -> Iterator[tuple[int, dict[str, Any] | ValueError]]:
    """Number and content of each line; an error for one that holds no object."""
    if ending == ".parquet":
        yield from _of_parquet(file, place)
    elif ending == ".csv":
        yield from _of_csv(file, place)
    else:
        for number, (_, line) in enumerate(lines_of(file), start=1):
            if line is not None and not line.strip():
                continue
            try:
                yield number, object_in_line(line)
            except ValueError as error:
                yield number, error


@contextlib.contextmanager
def _table(file: BinaryIO, place: str) -> Iterator[Any]:
    """A file of Parquet.

    Raises:
        InputError: it cannot be read, here or in the block. UsageError: a package is missing.
    """
    require_extra("cluster", "a list in Parquet", only=("pyarrow",))
    import pyarrow
    from pyarrow import parquet

    try:
        yield parquet.ParquetFile(file)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"is damaged or not Parquet ({reason})", path=place) from error


def _of_parquet(file: BinaryIO, place: str) -> Iterator[tuple[int, dict[str, Any]]]:
    number = 0
    with _table(file, place) as table:
        batches = table.iter_batches(batch_size=ROWS)
        while (batch := next(batches, None)) is not None:
            for found in batch.to_pylist(maps_as_pydicts="lossy"):
                number += 1
                yield number, {key: value for key, value in found.items() if value is not None}


def _of_csv(file: BinaryIO, place: str) -> Iterator[tuple[int, dict[str, Any] | ValueError]]:
    names: list[str] = []
    for number, (_, line) in enumerate(lines_of(file), start=1):
        try:
            if line is None:
                raise ValueError("it is longer than a line may be")
            text = line.decode("utf-8-sig")
            if not text.strip():
                continue
            if text.count('"') % 2:  # a line alone may seem complete
                raise ValueError("a field has a line break, or a quotation mark that is not closed")
            (values,) = csv.reader(io.StringIO(text), strict=True)
        except (ValueError, csv.Error) as error:
            yield number, ValueError(f"it is no line of CSV ({error})")
            continue
        if not names:
            names = [value.strip() for value in values]
            if "id" not in names or len(set(names)) < len(names):
                raise InputError(
                    "its first line must have the names of the columns, each once, with id; "
                    f"found {', '.join(names)[:200]}",
                    path=place,
                )
            continue
        if len(values) != len(names):
            yield number, ValueError(f"it has {len(values)} fields, the first line {len(names)}")
            continue
        yield number, {key: value for key, value in zip(names, values, strict=True) if value}


def _row(data: Mapping[str, Any], folder: str, channels: Sequence[str], line: str) -> Row:
    """Raises LayoutError: what is wrong with the line."""
    given = data.get("id")
    name = str(given) if isinstance(given, int) and not isinstance(given, bool) else given
    if not isinstance(name, str):
        raise LayoutError("has no id, which is a text or a whole number")
    _refuse_name(name)
    images = _images(data, folder, channels)
    case = Case(name, name, images)
    digest, nbytes = data.get("sha256", ""), data.get("bytes")
    if not isinstance(digest, str) or not re.fullmatch(r"([0-9a-fA-F]{64})?", digest):
        raise LayoutError("sha256 must be 64 hex digits")
    try:
        size = None if nbytes is None else int(nbytes)
    except (TypeError, ValueError):
        raise LayoutError(f"bytes must be a whole number, found {nbytes!r:.40}") from None
    if (digest or size is not None) and (len(images) != 1 or is_remote(images[0].path)):
        raise LayoutError("sha256 and bytes are for scans of one file")
    return Row(case, _about(data), digest.lower(), size, line)


def _refuse_name(name: str) -> None:
    if _UNFIT.search(name) or len(name.encode("utf-8", "replace")) > MOST_ID_BYTES:
        raise LayoutError(
            f"its id must have no control characters and at most {MOST_ID_BYTES} bytes"
        )
    if name.startswith(".") or re.search("[\ud800-\udfff]", name):
        raise LayoutError("its id must not begin with a dot, and be valid Unicode")


def _images(data: Mapping[str, Any], folder: str, channels: Sequence[str]) -> tuple[Source, ...]:
    given = data.get("images", data.get("image"))
    if given is None:
        columns = [key for key in data if key not in ("id", "patient", "series", *ABOUT)]
        at = match_channels(columns, channels)
        given = {
            channel: data[columns[place]]
            for channel, place in zip(channels, at, strict=True)
            if place is not None
        }
    if isinstance(given, str):
        given = [given]
    if isinstance(given, Mapping):
        names = list(given)
        at = match_channels(names, channels)
        if lost := [name for n, name in enumerate(names) if n not in at]:
            raise LayoutError(
                f"{lost[0]!r:.80} is no channel of the model, which needs {', '.join(channels)}"
            )
        given = [None if place is None else given[names[place]] for place in at]
    if not isinstance(given, list | tuple) or not given or all(one is None for one in given):
        raise LayoutError(f"names no image; the model needs {', '.join(channels)}")
    if len(given) not in (1, len(channels)):
        raise LayoutError(f"has {len(given)} images; the model needs {', '.join(channels)}")
    series = data.get("series", "")
    if not isinstance(series, str):
        raise LayoutError("series must be a text, a SeriesInstanceUID")
    return tuple(_source(one, folder, series) for one in given)


def _source(given: Any, folder: str, series: str) -> Source:
    if given is None:
        return ABSENT
    if isinstance(given, Mapping):  # as in a manifest
        try:
            found = Source.from_json(dict(given))
        except (KeyError, TypeError, ValueError):
            raise LayoutError("has an image that is no source of a manifest") from None
        _refuse_path(found.path)
        if is_remote(found.path):
            return replace(found, path=_series_in_archive(found.path, series or found.series))
        return replace(found, path=stores.joined(folder, stores.local(found.path)))
    _refuse_path(given)
    if is_remote(given):
        return Source(_series_in_archive(given, series))
    return Source(stores.joined(folder, stores.local(given)), series)


def _series_in_archive(text: str, series: str) -> str:
    """The whole address of a series."""
    try:
        address = Address.of(text)
        address = Address.of(str(replace(address, series=series))) if series else address
    except UsageError as error:
        raise LayoutError(error.message) from error
    if not (address.study and address.series):
        raise LayoutError("names no series of the archive; a study may have several")
    return str(address)


def _refuse_path(path: Any) -> None:
    if not isinstance(path, str) or not path or "\0" in path:
        raise LayoutError(f"has an image without a path, found {path!r:.80}")


def _about(data: Mapping[str, Any]) -> dict[str, Any]:
    """What the line states of ``ABOUT``, as short texts and numbers."""
    found: dict[str, Any] = {}
    for key in ABOUT:
        value = data.get(key)
        if isinstance(value, str):
            found[key] = value.strip()[:MOST_ABOUT]
        elif isinstance(value, int | float) and math.isfinite(value):
            found[key] = value
    return found


def _matches(pattern: str) -> Iterator[tuple[str, str]]:
    """Id and place of each match; the id is the part of the path that the pattern leaves open."""
    fixed = stores.MAGIC.split(pattern, maxsplit=1)[0].rpartition("/")[0]
    if stores.is_url(pattern):
        paths: Iterator[str] = iter(stores.found(pattern))
    else:
        paths = glob.iglob(pattern, recursive=True)
    path = ""
    for path in paths:
        rest = path.removeprefix(fixed).strip("/").replace(os.sep, "/")
        head, _, last = rest.rpartition("/")
        yield "_".join(filter(None, (*head.split("/"), stem(last)))), path
    if not path:
        raise InputError("no file has a name of this pattern", path=stores.shown(pattern))


def _matched(match: tuple[str, str]) -> Row | Unusable:
    name, path = match
    try:
        _refuse_name(name)
        place = path if stores.is_url(path) else os.path.abspath(path)
        return Row(Case(name, name, (Source(place),)), line=stores.shown(path))
    except DelineateError as error:
        shown = stores.shown(path)
        return Unusable(shown, InputError(error.message, path=shown))
