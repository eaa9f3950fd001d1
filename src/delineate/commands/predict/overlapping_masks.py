"""The files of a mask: one label map. Of structures that may overlap, because a label map has one
value for each voxel: the layers of one file (``CASE.seg.nrrd``), or a folder with one file for each
structure (``CASE/STRUCTURE.nii.gz``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...core import atomic
from ...core.labels import Label, LabelSet
from ...core.prediction import Prediction
from ...formats import files
from ...formats.disk import stems_of

LAYERED = "nrrd"  # the format that holds layers in one file


def mask_files(out: Path, case: str, form: str, structures: LabelSet) -> list[Path]:
    """The files that ``write_mask`` writes: one, or one for each structure in their order."""
    if not structures.overlapping:
        return [out / f"{case}.{form}"]
    if form == LAYERED:
        return [out / f"{case}.seg.nrrd"]
    return [out / case / f"{stem}.{form}" for stem in stems_of(structures)]


def write_mask(prediction: Prediction, out: Path, case: str, form: str) -> dict[str, Any]:
    """Write a mask in the form of its structures.

    Returns:
        "file", the file or folder; of a folder also "files", structure -> file. All are relative to
        ``out``.
    """
    labels, structures = prediction.labels, prediction.structures
    targets = mask_files(out, case, form, structures)
    if not structures.overlapping or form == LAYERED:
        files.write(labels, targets[0], labels=structures)
        return {"file": targets[0].name}
    atomic.make_folder(out / case)
    for label, target in zip(structures, targets, strict=True):
        inside = structures.inside(labels.array, label).astype("uint8")
        only = LabelSet((Label(1, label.name, label.colour, label.code, label.side),))
        files.write(labels.with_array(inside, "label"), target, labels=only)
    names = {b.name: f"{case}/{t.name}" for b, t in zip(structures, targets, strict=True)}
    return {"file": case, "files": names}
