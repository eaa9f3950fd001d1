"""Finding the DICOM series in a folder, and choosing one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from ...core.errors import FormatError, InputError
from ..disk import natural_key, told
from .geometry import layout
from .headers import (
    DAMAGED,
    Plane,
    Series,
    SeriesFacts,
    facts_of,
    not_an_image,
    planes_of,
    read_header,
    series_of,
)


def find(folder: str | Path, recursive: bool = True) -> tuple[list[Series], list[tuple[Path, str]]]:
    """Find all image series in a folder (or of one file).

    Returns:
        The series, and the DICOM files that hold no image, each with its kind (or ``DAMAGED``).
    """
    series: dict[str, list[tuple[Plane, SeriesFacts]]] = {}
    others: list[tuple[Path, str]] = []
    for path in _files(Path(folder), recursive):
        # A file with a damaged header is listed, not raised: the folder may hold other series.
        try:
            # pydicom converts an element when it is asked for, so each of these may fail.
            with told(path, "DICOM file"):
                dataset = read_header(path)
                what = "" if dataset is None else not_an_image(dataset)
                planes = [] if dataset is None or what else planes_of(path, dataset)
                facts = facts_of(dataset) if planes else None
        except FormatError:
            others.append((path, DAMAGED))
            continue
        if what:
            others.append((path, what))
        if facts is not None:
            series.setdefault(facts.uid, []).extend((one, facts) for one in planes)
    return [series_of(members) for members in series.values()], others


def find_series(folder: str | Path, recursive: bool = True) -> list[Series]:
    """Find all image series in a folder, in the order of their first files; empty if there is none.
    Objects without images are left out.
    """
    return find(folder, recursive)[0]


def choose(folder: str | Path, uid: str = "") -> Series:
    """Choose the series ``uid`` of a folder, or its only usable one.

    Raises:
        FormatError: there is no series, no such series, or there are several; the error lists them
            and how to choose one.
    """
    series, others = find(folder)
    damaged = [path.name for path, what in others if what == DAMAGED]
    # A damaged file may be a slice of any series here. If it is the first or last one, its absence
    # leaves no gap that would be noticed.
    if damaged:
        raise FormatError(
            f"{len(damaged)} DICOM file(s) are damaged or truncated ({', '.join(damaged[:3])})",
            path=folder,
        )
    if uid:
        chosen = [s for s in series if s.uid == uid]
        if not chosen:
            raise FormatError(f"no series {uid} here; found: {_listed(series)}", path=folder)
        return chosen[0]
    if not series:
        kinds = sorted({what for _, what in others})
        found = (
            f"only DICOM objects without images ({', '.join(kinds)})"
            if kinds
            else "no image that can be read"
        )
        raise FormatError(f"{found} in this folder", path=folder)
    # Localisers and the like often share the folder: a single readable series needs no choice.
    usable = [s for s in series if not problem_of(s)]
    if len(series) == 1 or len(usable) == 1:
        return (usable or series)[0]
    if not usable:
        raise FormatError(
            f"none of the {len(series)} series can be read: {_listed(series)}", path=folder
        )
    raise FormatError(
        f"{len(series)} series in one folder, choose one as FOLDER#SERIES_UID: {_listed(series)}",
        path=folder,
    )


def problem_of(series: Series) -> str:
    """Return why the headers of the series do not allow reading it as one volume; "" if they do."""
    try:
        layout(series)
    except InputError as error:
        return error.message
    return ""


def _listed(series: Iterable[Series]) -> str:
    """List series in one line, with the reason for each that is refused."""
    return (
        "; ".join(
            s.title + (f" - refused: {why}" if (why := problem_of(s)) else "") for s in series
        )
        or "none"
    )


def _files(folder: Path, recursive: bool) -> Iterator[Path]:
    """Yield the visible files of a folder in natural order, or the file itself."""
    if folder.is_file():
        yield folder
        return
    with told(folder):
        entries = sorted(folder.rglob("*") if recursive else folder.iterdir(), key=natural_key)
    yield from (p for p in entries if p.is_file() and not p.name.startswith("."))
