"""Slices that ``export-slices`` wrote: every slice is a case, and all slices of a scan have its
patient.
"""

from __future__ import annotations

from pathlib import Path

from ....core.labels import IGNORED, LabelMapping
from ....core.manifest import Case, Source
from ....extend.findings import Draft
from ....extend.registering import layout
from ....formats.files import stem
from ....formats.slices.cases import source_of
from ....formats.slices.pixels import MaskCodes
from ....formats.slices.record import MASKS_FOLDER, RECORD, VIEWS, SliceSet
from ..splits import with_free_training
from ..tree import Tree, source


@layout(
    "exported-slices",
    definition="slices.json, VIEW/images/CASE_VIEW_N.png, VIEW/masks/CASE_VIEW_N.png",
    tier="described",
)
def exported(tree: Tree, root: Path) -> Draft | None:
    """The slices of all views, or of one if ``root`` is its folder. Slices that were deleted since
    are left out.
    """
    place = root.parent if root.name in VIEWS else root
    if place / RECORD not in tree.files(place):
        return None
    found = SliceSet.load(place)
    views = found.views if place == root else (root.name,)
    # Intensities are pixels, not HU: every slice is normalised by itself.
    channels = ("image",) if len(found.channels) == 1 else tuple(found.channels)
    draft = Draft("exported-slices", [], channels, found.labels, _mapping(found.codes))
    draft.settings.append(place / RECORD)
    draft.ignore = () if found.codes.ignored is None else (found.codes.ignored,)
    listed = {
        path
        for view in views
        for folder in (*found.channels.values(), MASKS_FOLDER)
        if (inner := place / view / folder).is_dir()
        for path in tree.files(inner)
    }
    missing = 0
    for row in found.rows():
        if row["view"] not in views:
            continue
        case, name = found.cases[row["case"]], found.name(row["case"], row["view"], row["slice"])
        images = [place / row["view"] / folder / name for folder in found.channels.values()]
        mask = place / row["view"] / MASKS_FOLDER / name
        if not {*images} <= listed:
            missing += 1
            continue
        scan, truth = (source_of(case, found, row["view"], is_mask) for is_mask in (False, True))
        label: tuple[Source, ...] = (source(mask, **truth),) if mask in listed else ()
        scans = tuple(source(path, **scan) for path in images)
        draft.cases.append(
            Case(stem(name), case.patient, scans, label, case.split, group=case.group)
        )
    draft.cases = with_free_training(draft.cases)
    if missing:
        draft.note("missing", f"{missing} slices of {place / RECORD} do not exist any more")
    if len(views) > 1:
        draft.note("views", f"slices of {', '.join(views)}; {place / views[0]} has one view")
    return draft


def _mapping(codes: MaskCodes) -> LabelMapping:
    """Pixels of masks -> values of structures."""
    pairs = [(code, value) for value, code in codes.table.items() if value not in (0, IGNORED)]
    if codes.kind == "index":
        return LabelMapping()
    if codes.kind == "grey":
        return LabelMapping(values=tuple((c, v) for c, v in pairs if isinstance(c, int)))
    return LabelMapping(rgb=tuple((c, v) for c, v in pairs if not isinstance(c, int)))
