"""Damaged files: which series each one costs.

A file belongs to the series that its header names. If the damage hides the name, it belongs to the
series of the files next to it. If these are of several series, or if the file has no header at all,
none is refused, and all of them get a note: a slice at an end leaves no gap that would be noticed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .header.file import Series, SeriesFacts

SHOWN = 3  # files that a sentence names


@dataclass(frozen=True)
class DamagedFile:
    """A damaged file and why it is; ``facts`` are None if its header cannot be read. One without
    any header ``is_bare``.
    """

    path: Path
    why: str
    facts: SeriesFacts | None = None
    is_bare: bool = False


def charge(
    series: Sequence[Series], damaged: Sequence[DamagedFile]
) -> tuple[list[Series], list[DamagedFile]]:
    """Give every damaged file to its series.

    Returns:
        The series, with a ``problem`` if they lost files, and series of damaged files alone; and
        the files that no series can be found for.
    """
    if not damaged:
        return list(series), []
    near: dict[Path, set[str]] = {}
    for one in series:
        for path in one.files:
            near.setdefault(path.parent, set()).add(one.uid)
    lost: dict[str, list[DamagedFile]] = {}
    unknown = []
    for file in damaged:
        uids = {file.facts.uid} if file.facts and file.facts.uid else near.get(file.path.parent)
        uids = None if file.is_bare else uids
        if uids is not None and len(uids) == 1:
            lost.setdefault(min(uids), []).append(file)
        else:
            unknown.append(file)
    charged = [_noted(one, lost.get(one.uid, ()), unknown) for one in series]
    for uid in lost.keys() - {one.uid for one in series}:
        files = tuple(file.path for file in lost[uid])
        facts = next(file.facts for file in lost[uid] if file.facts)
        problem = _sentence(lost[uid], 0)
        charged.append(
            Series(**vars(facts), files=files, planes=(), problem=problem, is_damaged=True)
        )
    return charged, unknown


def _noted(one: Series, lost: Sequence[DamagedFile], unknown: Sequence[DamagedFile]) -> Series:
    folders = {path.parent for path in one.files}
    near = [file for file in unknown if file.path.parent in folders]
    notes = one.notes
    if near:
        notes += (f"{named(near)}; its series is unknown and may be this one",)
    problem = _sentence(lost, len(one.files)) if lost else one.problem
    return replace(one, notes=notes, problem=problem, is_damaged=bool(lost))


def _sentence(lost: Sequence[DamagedFile], sound: int) -> str:
    files = len(lost) + sound
    return f"of its {files} file{'s' if files > 1 else ''}, {named(lost)}"


def named(damaged: Sequence[DamagedFile]) -> str:
    """Names the first files, and why the first is damaged.

    >>> named([DamagedFile(Path("ct/7.dcm"), "it ends at byte 90")])
    '1 is damaged or truncated (7.dcm: it ends at byte 90)'
    """
    first, *rest = damaged
    others = [file.path.name for file in rest[: SHOWN - 1]]
    more = [f"and {len(rest) - len(others)} more"] if len(rest) > len(others) else []
    listed = "; ".join([f"{first.path.name}: {first.why}", *others, *more])
    return f"{len(damaged)} {'are' if rest else 'is'} damaged or truncated ({listed})"
