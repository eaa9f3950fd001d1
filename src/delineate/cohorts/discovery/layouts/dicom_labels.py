"""Series of DICOM images whose labels are DICOM objects (structure sets, segmentations), wherever
in a tree they lie.

An object belongs to the series that it refers to (``formats.dicom.references``). Every labelled
series is a case, so an examination with CT, MR and PET has three, all of one patient. Folders and
names of files mean nothing here, except where PatientID is empty or a general word.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from ....core.errors import DelineateError
from ....core.manifest import Case, Source
from ....core.terms import read
from ....extend.findings import Draft
from ....formats import dicom
from ....formats.label_files import names_in
from ..tree import Tree

HEAD_BYTES = 2048  # of a DICOM file, which hold its SOP class
DEEPEST = 6  # folders from the root to a series
_KINDS = re.compile(b"|".join(re.escape(uid.encode()) + rb"(?![.\d])" for uid in dicom.LABEL_KINDS))
# Values of PatientID that are the same for every patient.
_ANONYMOUS = re.compile(
    r"(?i)(?:anon\w*|unknown|none|patient|phantom|test|de-?identified|[0x*-]*)$"
)


@dataclass
class _Labelled:
    """A series, its objects with labels, and the names of their structures."""

    series: dicom.Series
    patient: str
    objects: dict[Path, tuple[str, ...]] = field(default_factory=dict)


def of_dicom_labels(tree: Tree, root: Path) -> Draft | None:
    """The series with DICOM labels below ``root``; None if less than half of the patients have
    any, or if most of the tree are images of other formats, which are cohorts of their own.
    """
    below = list(_folders(tree, root, DEEPEST))
    folders = [folder for folder in below if tree.is_dicom(folder)]
    if not any(_may_be_label(path) for folder in folders for path in tree.dicom_files(folder)):
        return None
    if sum(len(tree.images(one)) for one in below if one not in folders) > len(folders):
        return None
    series, others = dicom.find(root)
    found = [_Labelled(one, _patient_of(one, root)) for one in series if not dicom.problem_of(one)]
    draft = Draft("hospital", [])
    for path, _ in others:
        if kind := dicom.kind_of(path):
            _give(draft, path, kind, found, series)
    labelled = [one for one in found if one.objects]
    patients, with_labels = ({one.patient for one in them} for them in (found, labelled))
    if not labelled or 2 * len(with_labels) < len(patients):
        return None
    _add_cases(draft, found)
    _note_shared_names(draft, labelled)
    return draft


def _folders(tree: Tree, folder: Path, depth: int) -> Iterator[Path]:
    yield folder
    for inner in tree.folders(folder) if depth else ():
        yield from _folders(tree, inner, depth - 1)


def _may_be_label(path: Path) -> bool:
    """Whether the beginning of a file has the SOP class of an object with labels."""
    try:
        with path.open("rb") as file:
            return _KINDS.search(file.read(HEAD_BYTES)) is not None
    except OSError:
        return False


def _patient_of(series: dicom.Series, root: Path) -> str:
    """PatientID, or the first folder if that says nothing; usable in the name of a file."""
    name = series.patient_id
    if _ANONYMOUS.match(name):
        parts = series.files[0].relative_to(root).parts
        name = parts[0] if len(parts) > 1 else root.absolute().name
    return re.sub(r"[^\w.-]+", "_", name).strip("_") or "patient"


def _give(
    draft: Draft,
    path: Path,
    kind: str,
    found: Sequence[_Labelled],
    every: Sequence[dicom.Series],
) -> None:
    """Give an object to its series, or report why it has none."""
    try:
        named, names = dicom.references(path), tuple(names_in(path).values())
    except DelineateError as error:
        draft.problem("", "refused", f"{path}: {error.message}", "warning", path=str(path))
        return
    fits = named.choose([one.series for one in found])
    if len(fits) == 1 and names:
        next(one for one in found if one.series is fits[0]).objects[path] = names
        return
    if not names:
        why = "has no structure"
    elif fits:
        why = f"could belong to {len(fits)} series: {'; '.join(one.title for one in fits)}"
    elif unread := named.choose(every):
        why = f"belongs to {unread[0].title}, which cannot be read: {dicom.problem_of(unread[0])}"
    else:
        why = "belongs to no series here"
    draft.problem("", "unpaired", f"{path} ({kind}) {why}", "warning", path=str(path))


# ---- cases ----


def _add_cases(draft: Draft, found: Sequence[_Labelled]) -> None:
    """Each labelled series is a case, and the only series of a patient without labels."""
    by_patient: dict[str, list[_Labelled]] = defaultdict(list)
    for one in found:
        by_patient[one.patient].append(one)
    chosen: list[_Labelled] = []
    for patient, own in by_patient.items():
        labelled = [one for one in own if one.objects]
        rest = [one.series.title for one in own if not one.objects]
        if not labelled:
            words = f"no label for {'; '.join(rest[:4])}{' ...' if rest[4:] else ''}"
            draft.problem(patient, "unpaired", words, "warning")
            chosen += own if len(own) == 1 else []
        elif rest:
            draft.note("unused", f"{patient}: {len(rest)} series have no label: {'; '.join(rest)}")
        chosen += labelled
    folders = {id(one): _folder_of(one.series) for one in found}
    for one, name in zip(chosen, _ids(chosen), strict=True):
        folder = folders[id(one)]
        shared = sum(_folder_is_in(folder, other.series) for other in found) > 1
        image = Source(str(folder), series=one.series.uid if shared else "")
        like = f"{image.path}#{image.series}" if image.series else image.path
        labels = () if _is_twice(draft, name, one) else tuple(one.objects)
        draft.cases.append(
            Case(
                name,
                one.patient,
                (image,),
                tuple(Source(os.path.abspath(path), like=like) for path in labels),
                modality=one.series.modality,
            )
        )


def _ids(chosen: Sequence[_Labelled]) -> list[str]:
    """The patient, with as much of the modality, the number and a count as makes it unique."""
    names = [one.patient for one in chosen]
    for more in ("modality", "number"):
        if len(set(names)) == len(names):
            return names
        twice = {name for name, count in Counter(names).items() if count > 1}
        every = more == "modality"  # all cases have it, or none
        names = [
            f"{name}_{getattr(one.series, more)}".rstrip("_") if every or name in twice else name
            for name, one in zip(names, chosen, strict=True)
        ]
    seen: Counter[str] = Counter()
    for place, name in enumerate(names):
        seen[name] += 1
        if names.count(name) > 1:
            names[place] = f"{name}_{seen[name]}"
    return names


def _folder_of(series: dicom.Series) -> Path:
    """The folder that holds all files of a series."""
    parents = {os.path.abspath(path.parent) for path in series.files}
    return Path(os.path.commonpath(parents))


def _folder_is_in(folder: Path, series: dicom.Series) -> bool:
    return any(folder in path.absolute().parents for path in series.files)


def _is_twice(draft: Draft, case: str, one: _Labelled) -> bool:
    """Whether two objects of a series outline a structure of one name; it is then an error."""
    holders: dict[str, list[str]] = defaultdict(list)
    for path, names in one.objects.items():
        for name in names:
            holders[name.casefold()].append(path.name)
    twice = {name: paths for name, paths in holders.items() if len(paths) > 1}
    for name, paths in twice.items():
        words = f"{' and '.join(sorted(paths))} both have {name}; keep one of them"
        draft.problem(case, "unpaired", words)
    return bool(twice)


# ---- names ----


def _note_shared_names(draft: Draft, labelled: Sequence[_Labelled]) -> None:
    """Count the names, and set the structure of each: names that differ only in the modality of
    their series mean one structure.
    """
    counts = Counter(n for one in labelled for n in {*chain(*one.objects.values())})
    listed = ", ".join(f"{name} {count}" for name, count in counts.most_common())
    draft.note("names", f"series with each name of a structure: {listed}", counts=dict(counts))
    modalities: dict[str, set[str]] = defaultdict(set)
    plain: dict[str, str] = {}
    for one in labelled:
        for name in chain(*one.objects.values()):
            plain[name] = _without_modality(name, one.series.modality)
            modalities[plain[name]].add(one.series.modality)
    draft.called = {
        name: short if len(modalities[short]) > 1 else name for name, short in plain.items()
    }
    if changed := sorted({short for name, short in draft.called.items() if short != name}):
        names = sorted(name for name, short in draft.called.items() if short == changed[0])
        draft.note(
            "names",
            f"names that differ only in the modality of their series are one structure: "
            f"{', '.join(names[:4])} are {changed[0]}",
        )


def _without_modality(name: str, modality: str) -> str:
    """``name`` without the modality of its series at its end or beginning."""
    found = read(name)
    if found.modality != {"PT": "PET"}.get(modality, modality) or not found.identity:
        return name
    before, after = found.before.strip("_- "), found.after.strip("_- ")
    return name if before and after else before or after or name
