"""Trees of an archive: series of DICOM images with masks as volumes in or next to the folder of
their series (``PATIENT/STUDY/SERIES/*.dcm``), or with labels in DICOM (``dicom_labels``).

A mask as a volume belongs to the series whose folder it is in or next to; if these are several, to
the one whose grid it has, or whose folder its name contains. Names and content tell masks from
converted scans. A series in a folder named after masks (``PATIENT/mask/*.dcm``) is a mask too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ....core.errors import DelineateError
from ....core.grid import Grid
from ....core.manifest import Case
from ....extend.findings import Draft
from ....extend.registering import layout
from ....formats import dicom, files
from ....formats.files import stem
from ..drafts.content import content_of
from ..tree import Tree, is_raster, source
from .dicom_labels import MOST_VOLUMES, channels_of, images_of, of_dicom_labels
from .parallel.roles import LABEL_WORD
from .structure_masks import set_masks
from .suffix_pairs import is_label

DEEPEST = 4  # number of folder levels between the root and a series
_MASK_FOLDERS = ("masks", "mask", "labels", "label", "segmentations", "segmentation", "seg", "rois")


@dataclass
class _Series:
    """A folder of DICOM files, its patient's folder, and the masks found for it."""

    folder: Path
    patient: Path
    masks: list[Path] = field(default_factory=list)


@layout(
    "hospital",
    definition="PATIENT/STUDY/SERIES/*.dcm with masks in or next to SERIES; any tree of DICOM "
    "with RTSTRUCT or SEG",
    tier="pairs",
)
def hospital(tree: Tree, root: Path) -> Draft | None:
    """Each series with a mask is a case; a patient without masks but with one series is too."""
    series = [
        _Series(folder, patient)
        for patient in tree.folders(root)
        for folder in _dicom_folders(tree, patient, DEEPEST)
    ]
    masks = [one.folder for one in series if _is_mask_series(tree, one)]
    series = [one for one in series if one.folder not in masks]
    draft = Draft("hospital", [])
    for patient in dict.fromkeys(one.patient for one in series):
        own = [path for path in masks if patient in path.parents]
        _give_masks(tree, draft, [one for one in series if one.patient == patient], own)
    labelled = [one for one in series if one.masks]
    patients, with_mask = ({one.patient for one in found} for found in (series, labelled))
    if 2 * len(with_mask) < max(1, len(patients)):
        return of_dicom_labels(tree, root)
    _add_cases(tree, draft, series)
    return draft


def _dicom_folders(tree: Tree, folder: Path, depth: int) -> Iterator[Path]:
    if tree.is_dicom(folder):
        yield folder
    elif depth > 1:
        for inner in tree.folders(folder):
            yield from _dicom_folders(tree, inner, depth - 1)


def _is_mask_series(tree: Tree, one: _Series) -> bool:
    """Whether a folder, or one between it and the patient's, is named after masks, and holds images
    (RTSTRUCT and SEG say themselves what they label).
    """
    named = (folder.name for folder in (one.folder, *_above(one)) if folder != one.patient)
    return any(map(LABEL_WORD.match, named)) and bool(_series_in(tree, one.folder))


def _give_masks(tree: Tree, draft: Draft, series: Sequence[_Series], masks: Sequence[Path]) -> None:
    """Give every mask below one patient to its series, or report why it has none; ``masks`` are
    folders of DICOM images.
    """
    place = {one.folder: one for one in series}
    for folder in dict.fromkeys(f for one in series for f in (one.folder, *_above(one))):
        for path in _masks_in(tree, folder):
            near = [place[folder]] if folder in place else _below(folder, series)
            _give(tree, draft, path, near)
    for path in masks:
        # The series that are fewest folders up.
        near = next((found for f in path.parents if (found := _below(f, series))), [])
        _give(tree, draft, path, near)


def _give(tree: Tree, draft: Draft, mask: Path, near: Sequence[_Series]) -> None:
    """Give a mask to the one of the series near it that it belongs to."""
    chosen = near if len(near) == 1 else _by_name_or_grid(tree, mask, near)
    if len(chosen) == 1:
        chosen[0].masks.append(mask)
        return
    draft.problem(
        near[0].patient.name,
        "unpaired",
        f"{mask.name} could be of several series: {', '.join(one.folder.name for one in near)}; "
        "put it into the folder of its series",
        path=str(mask),
    )


def _above(one: _Series) -> list[Path]:
    """The folders from that of the series up to the patient's."""
    if one.folder == one.patient:
        return []
    parents = list(one.folder.parents)
    return parents[: parents.index(one.patient) + 1]


def _below(folder: Path, series: Sequence[_Series]) -> list[_Series]:
    return [one for one in series if folder in one.folder.parents]


def _masks_in(tree: Tree, folder: Path) -> list[Path]:
    """The volumes in a folder and in its folder of masks that are masks by name or content."""
    inner = tree.folder(folder, *_MASK_FOLDERS)
    # A folder of DICOM masks is a series of its own.
    places = [folder, *([inner] if inner and not tree.is_dicom(inner) else [])]
    volumes = [p for place in places for p in tree.images(place) if not is_raster(p)]
    return [path for path in volumes if is_label(path) or content_of(path).kind == "mask"]


def _by_name_or_grid(tree: Tree, mask: Path, series: Sequence[_Series]) -> list[_Series]:
    """The series whose folder's name the mask's name contains, else those with its grid."""
    named = [one for one in series if one.folder.name.lower() in stem(mask).lower()]
    if len(named) == 1:
        return named
    try:
        grid = files.read_grid(mask)
    except DelineateError:
        return []
    return [one for one in series if _has_grid(tree, one.folder, grid)]


def _has_grid(tree: Tree, folder: Path, grid: Grid) -> bool:
    """Whether a series has this grid, in any order of the axes."""
    try:
        own = files.read_grid(replace(source(folder), fix_series=tree.fix_series))
    except DelineateError:
        return False
    return grid.reorient(own.codes)[0].matches(own)


def _add_cases(tree: Tree, draft: Draft, series: Sequence[_Series]) -> None:
    counts = Counter(one.patient for one in series if one.masks)
    every = Counter(one.patient for one in series)
    # One mask each may have any name; several are one structure each.
    several = any(len(one.masks) > 1 for one in series)
    if several:
        set_masks(draft, sorted({stem(path) for one in series for path in one.masks}))
    chosen: dict[str, _Series] = {}
    for one in series:
        name = one.patient.name
        if not one.masks:
            if counts[one.patient] or every[one.patient] > 1:
                continue
            draft.problem(name, "unpaired", f"no mask in or next to {one.folder}", "warning")
        elif counts[one.patient] > 1:
            name = "_".join(one.folder.relative_to(one.patient.parent).parts)
        chosen[name] = one
    found = {name: _series_in(tree, one.folder) for name, one in chosen.items()}
    volumes = {name: _volumes_of(own) for name, own in found.items()}
    draft.channels, fitting = channels_of(draft, volumes)
    for name, one in chosen.items():
        if name in fitting:
            images = images_of(one.folder, volumes[name], False) or (source(one.folder),)
            masks = tuple(source(path) for path in one.masks)
            modality = found[name][0].modality if found[name] else ""
            draft.cases.append(Case(name, one.patient.name, images, masks, modality=modality))


def _series_in(tree: Tree, folder: Path) -> list[dicom.Series]:
    """The series in a folder; [] if it cannot be read."""
    try:
        return tree.series(folder)
    except DelineateError:
        return []


def _volumes_of(series: Sequence[dicom.Series]) -> list[dicom.Series]:
    """The volumes at the same positions of the only series that can be read; [] if there are
    several or none.
    """
    usable = [one for one in series if not dicom.problem_of(one)]
    (together, *others) = dicom.at_same_positions(usable) or [[]]
    return [] if others or len(together) > MOST_VOLUMES else together
