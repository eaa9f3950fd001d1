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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from ....core.errors import DelineateError
from ....core.manifest import Case, Source
from ....core.terms import read
from ....extend.findings import Draft
from ....formats import dicom
from ....formats.archive import members, opened
from ....formats.files import stem
from ....formats.label_files import names_in
from ..tree import Tree

MOST_VOLUMES = 8  # of a series at the same positions that become channels; more are a time series
HEAD_BYTES = 2048  # of a DICOM file, which hold its SOP class
DEEPEST = 6  # folders from the root to a series
_KINDS = re.compile(b"|".join(re.escape(uid.encode()) + rb"(?![.\d])" for uid in dicom.LABEL_KINDS))
# Values of PatientID that are the same for every patient.
_ANONYMOUS = re.compile(
    r"(?i)(?:anon\w*|unknown|none|patient|phantom|test|de-?identified|[0x*-]*)$"
)


@dataclass
class _Labelled:
    """A series, its volumes at the same positions (usually one), its objects with labels, and the
    names of their structures.
    """

    volumes: Sequence[dicom.Series]
    patient: str
    objects: dict[Path, tuple[str, ...]] = field(default_factory=dict)

    @property
    def series(self) -> dicom.Series:
        return self.volumes[0]


def of_dicom_labels(tree: Tree, root: Path) -> Draft | None:
    """The series with DICOM labels below ``root``; None if less than half of the patients have
    any, or if most of the tree are images of other formats, which are cohorts of their own.
    """
    below = list(_folders(tree, root, DEEPEST))
    folders = [folder for folder in below if tree.is_dicom(folder)]
    archives = [path for folder in below for path in tree.dicom_archives(folder)]
    files = (path for folder in folders for path in tree.may_be_dicom(folder))
    if not any(map(_may_be_label, chain(files, chain.from_iterable(map(members, archives))))):
        return None
    places = [*folders, *archives]
    if sum(len(tree.images(one)) for one in below if one not in folders) > len(places):
        return None
    return labelled_in(tree, root)


def labelled_in(tree: Tree, root: Path) -> Draft | None:
    """The series with DICOM labels in a folder or archive; None if less than half of the patients
    have any.
    """
    series, others = tree.dicom_objects(root)
    found = _without_labels(series, root)
    draft = Draft("hospital", [])
    for path, _ in others:
        if kind := dicom.kind_of(path):
            _give(draft, path, kind, found, series, tree.fix_series == "split")
    labelled = [one for one in found if one.objects]
    patients, with_labels = ({one.patient for one in them} for them in (found, labelled))
    if not labelled or 2 * len(with_labels) < len(patients):
        return None
    _add_cases(draft, found)
    _note_shared_names(draft, labelled)
    return draft


def _without_labels(series: Sequence[dicom.Series], root: Path) -> list[_Labelled]:
    """The series that can be read, those at the same positions together."""
    usable = [one for one in series if not dicom.problem_of(one)]
    return [
        _Labelled(volumes, _patient_of(volumes[0], root))
        for together in dicom.at_same_positions(usable)
        for volumes in ([together] if len(together) <= MOST_VOLUMES else [[v] for v in together])
    ]


def _folders(tree: Tree, folder: Path, depth: int) -> Iterator[Path]:
    yield folder
    for inner in tree.folders(folder) if depth else ():
        yield from _folders(tree, inner, depth - 1)


def _may_be_label(path: Path) -> bool:
    """Whether the beginning of a file has the SOP class of an object with labels."""
    try:
        with opened(path) as file:
            return _KINDS.search(file.read(HEAD_BYTES)) is not None
    except (OSError, DelineateError):
        return False


def _patient_of(series: dicom.Series, root: Path) -> str:
    """PatientID, or the first folder if that says nothing; usable in the name of a file."""
    name = series.patient_id
    if _ANONYMOUS.match(name):
        parts = series.files[0].relative_to(root).parts
        name = stem(Path(parts[0] if len(parts) > 1 else root.absolute().name))
    return re.sub(r"[^\w.-]+", "_", name).strip("_") or "patient"


def _give(
    draft: Draft,
    path: Path,
    kind: str,
    found: Sequence[_Labelled],
    every: Sequence[dicom.Series],
    is_split: bool,
) -> None:
    """Give an object to its series, or report why it has none."""
    try:
        named, names = dicom.references(path), tuple(names_in(path).values())
    except DelineateError as error:
        draft.problem("", "refused", f"{path}: {error.message}", "warning", path=str(path))
        return
    fits = _fitting(named, found)
    runs = _runs_of(fits, named, found) if is_split else fits[:1] if len(fits) == 1 else []
    if names and runs:
        for one in runs:
            one.objects[path] = names
        return
    if not names:
        why = "has no structure"
    elif fits:
        why = f"could belong to {len(fits)} series: {'; '.join(one.series.title for one in fits)}"
    elif unread := named.choose(every):
        why = f"belongs to {unread[0].title}, which cannot be read: {dicom.problem_of(unread[0])}"
    else:
        why = "belongs to no series here"
    draft.problem("", "unpaired", f"{path} ({kind}) {why}", "warning", path=str(path))


def _fitting(named: dicom.References, found: Sequence[_Labelled]) -> list[_Labelled]:
    """What an object may belong to."""
    chosen = {id(one) for one in named.choose([v for one in found for v in one.volumes])}
    return [one for one in found if any(id(volume) in chosen for volume in one.volumes)]


def _runs_of(
    fits: Sequence[_Labelled], named: dicom.References, found: Sequence[_Labelled]
) -> list[_Labelled]:
    """The runs that an object names of the only series that it fits; [] if there are several."""
    uids = {one.series.uid for one in fits}
    if len(uids) != 1:
        return []
    of_series = [one for one in found if one.series.uid in uids]
    return [one for one in of_series if named.names(one.series)] or of_series


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
    folders = {id(one): dicom.place_of(one.series) for one in found}
    names = dict(zip(map(id, chosen), _ids(chosen), strict=True))
    draft.channels, fitting = channels_of(draft, {names[id(one)]: one.volumes for one in chosen})
    for one in chosen:
        if (name := names[id(one)]) not in fitting:
            continue
        folder = folders[id(one)]
        shared = sum(_folder_is_in(folder, other.series) for other in found) > 1
        labels = () if _is_twice(draft, name, one) else tuple(one.objects)
        draft.cases.append(
            Case(
                name,
                one.patient,
                images_of(folder, one.volumes, shared),
                tuple(Source(os.path.abspath(path)) for path in labels),
                modality=one.series.modality,
            )
        )


def images_of(place: Path, volumes: Sequence[dicom.Series], shared: bool) -> tuple[Source, ...]:
    """A source for each volume in a folder or archive; ``shared`` if it holds other ones too."""
    return tuple(
        Source(
            os.path.abspath(place),
            series=one.id if one.part else one.uid if shared else "",
        )
        for one in volumes
    )


def channels_of(
    draft: Draft, cases: Mapping[str, Sequence[dicom.Series]]
) -> tuple[tuple[str, ...], set[str]]:
    """The channels of cases whose series have several volumes, such as echoes, named by their
    parts; and the cases that have these channels. The others are errors.
    """
    parts = {
        name: tuple(one.part for one in volumes) if len(volumes) > 1 else ()
        for name, volumes in cases.items()
    }
    if not any(parts.values()):
        return draft.channels, set(cases)
    usual = Counter(parts.values()).most_common(1)[0][0]
    for name, own in parts.items():
        if own != usual:
            draft.problem(
                name,
                "missing",
                f"its series has {' and '.join(own) or 'one volume'}, most have "
                f"{' and '.join(usual) or 'one volume'}",
            )
    return usual or draft.channels, {name for name, own in parts.items() if own == usual}


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
