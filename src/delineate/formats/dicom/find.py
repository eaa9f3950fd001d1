"""Finding the DICOM series in a folder, and choosing one."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ...core.errors import FormatError, InputError
from .. import archive
from ..disk import HEAD_BYTES, Kept, natural_key, told
from .damage import DamagedFile, charge
from .dicomdir import compared
from .fix import fixed
from .geometry import layout
from .group import FEWEST, volumes
from .header.file import (
    DAMAGED,
    Plane,
    Series,
    SeriesFacts,
    facts_of,
    not_an_image,
    planes_of,
    read_header,
)
from .values.stated import stated_in

MOST_KEPT = 1 << 13  # planes, of about 5 kB each
MOST_LISTED = 50  # titles below one reason
NO_SIZE = "an image without Rows and Columns"
NAMED = (".dcm", ".dicom", ".ima", ".dcm.gz")  # endings of names that promise DICOM
NOT_DICOM, BLANK = "it is no DICOM file", "it is empty or begins with zeros"
BARE = (NOT_DICOM, BLANK)  # files without any header
NESTED = "an archive inside an archive, which is not opened"
UNOPENED = "a file packed by {}, which is not opened; unpack it"


def find(
    folder: str | Path,
    recursive: bool = True,
    fix_series: str = "",
    headers: Headers | None = None,
) -> tuple[list[Series], list[tuple[Path, str]]]:
    """Find all image series in a folder or archive (or of one file). A damaged file costs its own
    series and no other, see ``damage``.

    Args:
        folder: a folder, an archive or a file.
        recursive: whether folders below are searched too.
        fix_series: how series with uneven gaps become even, see ``fix``.
        headers: those of files that were read before, to which those of other files are added.

    Returns:
        The series, and the DICOM files that hold no image or belong to no series, each with its
        kind (or ``DAMAGED`` and why).

    Raises:
        FormatError: the archive cannot be read.
    """
    known = Headers() if headers is None else headers
    series, others, damaged = _by_kind(_read_all(Path(folder), recursive, known))
    found = [one for facts, planes in series.values() for one in volumes(planes, facts)]
    near = {path.parent for one in found for path in one.files}
    damaged = [one for one in damaged if one.why != BLANK or _is_near(one.path, near)]
    others = [
        (path, kind)
        for path, kind in others
        if not _is_packed(kind) or _is_near(path, near) or path == Path(folder)
    ]
    charged, unknown = charge(found, damaged)
    others += [(one.path, f"{DAMAGED}: {one.why}") for one in unknown]
    found, missing = compared(charged, [path for path, kind in others if kind == "DICOMDIR"])
    return [even for one in found for even in fixed(one, fix_series)], [*others, *missing]


@dataclass(frozen=True)
class _File:
    """A DICOM file: what it is if it holds no image of a series, or its planes, what it states of
    its series, and why it is damaged.
    """

    path: Path
    kind: str = ""
    planes: Sequence[Plane] = ()
    facts: SeriesFacts | None = None
    damage: str = ""


def _by_kind(
    files: Iterable[_File],
) -> tuple[dict[str, tuple[SeriesFacts, list[Plane]]], list[tuple[Path, str]], list[DamagedFile]]:
    """The planes of each series by its UID, the files without an image, and the damaged ones."""
    series: dict[str, tuple[SeriesFacts, list[Plane]]] = {}
    others: list[tuple[Path, str]] = []
    damaged: list[DamagedFile] = []
    for file in files:
        if file.kind:
            others.append((file.path, file.kind))
        elif file.damage or file.facts is None:
            damaged.append(DamagedFile(file.path, file.damage, file.facts, file.damage in BARE))
        else:
            series.setdefault(file.facts.uid, (file.facts, []))[1].extend(file.planes)
    return series, others, damaged


class Headers(dict[Path, _File | None]):
    """Path -> the DICOM file there, None if it is none; each is read when it is first asked for."""

    def __missing__(self, path: Path) -> _File | None:
        self[path] = found = _kept(path)
        return found


def _read_all(place: Path, recursive: bool, headers: Headers) -> Iterator[_File]:
    """The DICOM files of a folder or archive."""
    for path in files_in(place, recursive):
        if (file := headers[path]) is not None:
            yield file
        elif archive.is_archive(path):
            try:
                members = sorted(archive.members(path), key=natural_key)
            except FormatError as error:
                if path == place:
                    raise
                yield _File(path, f"{DAMAGED}: {error.message}")
                continue
            yield from _members(members, headers)
        elif kind := archive.unopened_kind(path):
            yield _File(path, UNOPENED.format(kind))
        elif why := _why_no_dicom(path):
            yield _File(path, damage=why)


def _members(members: Sequence[Path], headers: Headers) -> Iterator[_File]:
    """The DICOM files among the members of an archive."""
    for path in members:
        if path.name.startswith("."):
            continue
        if (file := headers[path]) is not None:
            yield file
        elif archive.is_archive(path):
            yield _File(path, NESTED)
        elif why := _why_no_dicom(path):
            yield _File(path, damage=why)


def _is_near(path: Path, near: Collection[Path]) -> bool:
    """Whether an empty or packed file may be one of a series: its name promises DICOM, or it is in
    the folder of a series; it may be anything in other folders.
    """
    return _is_named(path) or path.parent in near


def _is_packed(kind: str) -> bool:
    return kind.startswith(UNOPENED.partition("{")[0])


def _is_named(path: Path) -> bool:
    return path.name.lower().endswith(NAMED)


def _why_no_dicom(path: Path) -> str:
    """Why a file that is not DICOM may be a damaged one: its name promises DICOM, or it is blank
    and its name is a number, as those of slices are; "" for any other file.
    """
    is_numbered = path.suffix.strip(".0123456789") == "" and any(map(str.isdigit, path.name))
    if not (_is_named(path) or is_numbered):
        return ""
    with archive.opened(path) as file:
        is_blank = not any(file.read(HEAD_BYTES))
    return BLANK if is_blank else NOT_DICOM if _is_named(path) else ""


def _read(path: Path) -> _File | None:
    """One file; None if it is not DICOM. A damaged file is no error here: the folder may hold other
    series.
    """
    facts = None
    try:
        if (header := read_header(path)) is None:
            return None
        # An element is converted when it is asked for, so that each of these may fail.
        with told(path, "DICOM file"):
            facts, kind = facts_of(header), not_an_image(header)
            if kind == DAMAGED or (header.damage and not kind):
                return _File(path, facts=facts, damage=header.damage or NO_SIZE)
            if kind:
                return _File(path, f"{DAMAGED} {kind}" if header.damage else kind)
            planes = planes_of(path, header, stated_in(header))
            return _File(path, planes=planes, facts=facts)
    except FormatError as error:
        return _File(path, facts=facts, damage=error.message)


def _weight(file: _File | None) -> int:
    return 1 if file is None else max(1, len(file.planes))


_kept = Kept(_read, _weight, MOST_KEPT, archive.around)


def find_series(
    folder: str | Path, fix_series: str = "", headers: Headers | None = None
) -> list[Series]:
    """Find all image series in a folder, in the order of their first files; empty if there is none.
    Objects without images are left out. Arguments are those of ``find``.
    """
    return find(folder, fix_series=fix_series, headers=headers)[0]


def choose(folder: str | Path, uid: str = "", fix_series: str = "") -> Series:
    """Choose the series ``uid`` of a folder, or its only usable one; for ``fix_series`` see
    ``find``.

    Raises:
        FormatError: there is no series, no such series, or there are several; the error lists them
            and how to choose one.
    """
    series, others = find(folder, fix_series=fix_series)
    if uid:
        chosen = [s for s in series if s.is_chosen_by(uid)]
        if not chosen:
            raise FormatError(f"no series {uid} here; found: {_listed(series)}", path=folder)
        series = chosen
    if not series:
        raise FormatError(f"{_nothing(others)} in this folder", path=folder)
    # Localisers and the like often share the folder: a single readable series needs no choice.
    stacks = _stacks(series)
    usable = [s for s in stacks if not problem_of(s)]
    # A part may only stand for its series if no other part of it was refused.
    chosen = stacks if len(stacks) == 1 else usable
    if len(chosen) == 1 and sum(s.uid == chosen[0].uid for s in stacks) == 1:
        return chosen[0] if uid else _noted(chosen[0], stacks, others)
    if not usable:
        raise FormatError(
            f"none of the {len(series)} series can be read: {_listed(series)}", path=folder
        )
    uids = {s.uid for s in series}
    what = (
        f"{len(series)} series in one folder, choose one as FOLDER#SERIES_UID"
        if len(uids) == len(series)
        else f"{len(series)} volumes of {len(uids)} series, choose one as FOLDER#SERIES_UID/PART"
    )
    raise FormatError(f"{what}: {_listed(series)}", path=folder)


def _nothing(others: Sequence[tuple[Path, str]]) -> str:
    """What a folder without a series has."""
    kinds = sorted({what for _, what in others})
    listed = f" ({', '.join(kinds)})" if kinds else ""
    if not kinds or any(kind.startswith(DAMAGED) or _is_packed(kind) for kind in kinds):
        return f"no image that can be read{listed}"
    return f"only DICOM objects without images{listed}"


def _noted(one: Series, stacks: Sequence[Series], others: Sequence[tuple[Path, str]]) -> Series:
    """A series with notes about damaged ones next to it, and files that may hold more of it."""
    lost = [
        f"series {s.title} is left out: {s.problem}"
        for s in stacks
        if s.is_damaged and s is not one
    ]
    folders = {path.parent for path in one.files}
    lost += [
        f"{path} is left out: {what}"
        for path, what in others
        if (what.startswith(DAMAGED) and path.parent not in folders)
        or what == NESTED
        or _is_packed(what)
    ]
    return replace(one, notes=(*one.notes, *lost))


def _stacks(series: Sequence[Series]) -> list[Series]:
    """Without single images (such as scouts that do not say so) of a series that has a stack."""

    def key(one: Series) -> tuple[str, str, str]:
        return one.uid, one.patient_id, one.planes[0].marks.frame_of_reference

    stacks = {key(s) for s in series if len(s.planes) >= FEWEST}
    return [s for s in series if len(s.planes) != 1 or key(s) not in stacks]


def place_of(series: Series) -> Path:
    """The folder that holds all files of a series, or the archive."""
    folder = Path(os.path.commonpath([os.path.abspath(path.parent) for path in series.files]))
    return archive.around(folder) or folder


def problem_of(series: Series) -> str:
    """Return why the headers of the series do not allow reading it as one volume; "" if they do."""
    try:
        layout(series)
    except InputError as error:
        return error.message
    return ""


def _listed(series: Iterable[Series]) -> str:
    """The series as a table, with the reason for each that is refused."""
    return table((s.title + (f" as {s.id}" if s.part else ""), problem_of(s)) for s in series)


def table(rows: Iterable[tuple[str, str]]) -> str:
    """Series (title, reason of its refusal or "") one a line, those with equal reasons together
    under their number; "none" without rows.

    >>> print(table([("CT 1", ""), ("MR 2", "no position"), ("MR 3", "no position")]))
    <BLANKLINE>
      CT 1
      2 refused: no position
        MR 2
        MR 3
    """
    titles: dict[str, list[str]] = {}
    for title, reason in rows:
        titles.setdefault(reason, []).append(title)
    lines = titles.pop("", [])
    for reason, several in titles.items():
        if len(several) == 1:
            lines.append(f"{several[0]} - refused: {reason}")
            continue
        shown = several[:MOST_LISTED]
        more = [f"and {len(several) - len(shown)} more"] if len(several) > len(shown) else []
        lines.append(f"{len(several)} refused: {reason}")
        lines += [f"  {title}" for title in (*shown, *more)]
    return "".join(f"\n  {line}" for line in lines) or "none"


def files_in(place: Path, recursive: bool = True) -> Iterator[Path]:
    """Yield the visible files of a folder in natural order, or the file itself; a DICOMDIR stands
    for the folder that it describes.
    """
    if place.is_file() and place.name.upper() == "DICOMDIR":
        place = place.parent
    if archive.is_file(place):
        yield place
        return
    with told(place):
        entries = sorted(place.rglob("*") if recursive else place.iterdir(), key=natural_key)
    yield from (p for p in entries if p.is_file() and not p.name.startswith("."))
