"""Write a repaired copy of a cohort: OUT/images, OUT/labels, OUT/manifest.jsonl and a log of every
change. The originals are never changed.

Repairs and their rules:
  copy affine   The shapes are equal, and the label's affine either differs from the image's by at
                most half a voxel (resampling would return the same array), or is a bare default
                (axes parallel to the world axes, and the first voxel or the centre of the volume
                at the origin). A bare default stores no position; the image's affine must then not
                be one, unless the image stores no position either.
  resample      In all other cases, if at least 90 % of the label's foreground is inside the image:
                nearest neighbour through both affines.
  fill          Voxels of the image that are NaN or infinite become background.
  one patient   Patients whose scans show the same get the id of the first; no file is written.
  remap         Values, ranges, colours or files become the cohort's own label values.
Everything else is left to a person. If values are remapped, every label is written, because a
manifest has only one mapping.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...core import atomic
from ...core.errors import DelineateError, GeometryError, OutputError
from ...core.grid import Grid
from ...core.labels import IGNORED, LabelMapping
from ...core.manifest import Case, Manifest
from ...core.volume import Volume, with_finite_voxels
from ...formats import files
from ..discovery.tree import source
from ..reading import map_label, read_image, read_raw_label

COPY_AFFINE, RESAMPLE, REMAP, FILL = "copy affine", "resample", "remap", "fill"
ONE_PATIENT = "one patient"
OVERLAP = 0.9  # smallest part of the label's foreground inside the image that allows resampling


@dataclass(frozen=True)
class RepairJob:
    """One case to repair: the case, the repairs to apply and the output folder."""

    case: Case
    manifest: Manifest
    ways: tuple[str, ...]
    out: str


def way_to_mend(
    image: Grid, label: Grid, array: NDArray[Any], *, placed: bool = True
) -> tuple[str | None, str]:
    """How to move a label (I, J, K) from the grid ``label`` to the grid ``image``.

    Args:
        image: the image's grid.
        label: the label's grid.
        array: the label's values (I, J, K).
        placed: whether the image's file stores a position in the patient.

    Returns:
        One of the repairs above, or None if there is none, and the reason.
    """
    # With equal shapes, copying the affine changes no voxel, so it is tried first.
    if image.shape == label.shape:
        distance = label.distance_mm(image)
        if distance <= min(image.spacing_mm) / 2:
            return COPY_AFFINE, "the difference is at most half a voxel"
        if is_default(label) and (not is_default(image) or not placed):
            return COPY_AFFINE, "its affine is a bare default, which stores no position"
    # Otherwise resample, provided that the label belongs to this image at all.
    inside = share_inside(image, label, array)
    if inside >= OVERLAP:
        return RESAMPLE, f"{100 * inside:.0f} % of its foreground is inside the image"
    return None, f"only {100 * inside:.0f} % of its foreground is inside the image"


def is_default(grid: Grid) -> bool:
    """Whether the affine looks as if it was never set: axes parallel to the world axes, and the
    first voxel or the centre of the volume at the origin.
    """
    # The rotation part must be diagonal; flips are allowed.
    matrix = np.abs(grid.affine[:3, :3])
    if not np.allclose(matrix, np.diag(np.diag(matrix)), atol=1e-4):
        return False
    return bool(
        np.allclose(grid.affine[:3, 3], 0, atol=1e-4)
        or np.allclose(grid.centre_mm, 0, atol=0.51 * max(grid.spacing_mm))
    )


def share_inside(image: Grid, label: Grid, array: NDArray[Any]) -> float:
    """Fraction (0..1) of the label's foreground voxels whose centres are inside the image; 0 if
    there is no foreground.
    """
    points = np.argwhere(array > 0)
    if not len(points):
        return 0.0
    # About 100,000 evenly spaced voxels are enough for a fraction.
    index = image.to_index(label.to_mm(points[:: max(1, len(points) // 100_000)]))
    return float(((index > -0.5) & (index < np.array(image.shape) - 0.5)).all(axis=1).mean())


def nearest(array: NDArray[Any], grid: Grid, target: Grid) -> NDArray[Any]:
    """Resample a label (I, J, K) from ``grid`` to ``target`` by nearest neighbour; voxels outside
    ``grid`` are 0.

    Works slice by slice to limit the memory.
    """
    out = np.zeros(target.shape, dtype=array.dtype)
    i, j = np.meshgrid(np.arange(target.shape[0]), np.arange(target.shape[1]), indexing="ij")
    limit = np.array(grid.shape)
    for k in range(target.shape[2]):
        # Index of the nearest source voxel for every voxel of this target slice, (I, J, 3).
        index = np.rint(
            grid.to_index(target.to_mm(np.stack([i, j, np.full_like(i, k)], axis=-1)))
        ).astype(np.int64)
        # Only target voxels inside the source are filled.
        inside = ((index >= 0) & (index < limit)).all(axis=-1)
        chosen = index[inside]
        out[..., k][inside] = array[chosen[:, 0], chosen[:, 1], chosen[:, 2]]
    return out


def mend_case(job: RepairJob) -> dict[str, Any]:
    """Write the repaired copy of one case and return its log entry.

    Running it again writes the same files.

    Raises:
        DelineateError: the case cannot be read or written.
    """
    case, out = job.case, Path(job.out)
    image = read_image(case, job.manifest)
    if FILL in job.ways:
        image = image.with_array(np.stack([with_finite_voxels(c) for c in image.array]))
    # The image is written again too, so that both files have the same geometry.
    image_path = out / "images" / f"{case.id}.nii.gz"
    files.write(image if image.channels > 1 else image.with_array(image.array[0]), image_path)
    return {
        "case": case.id,
        "ways": list(job.ways),
        "image_from": [s.path for s in case.images],
        "image": str(image_path),
        **(_mend_label(job, image.grid) if case.label else {}),
    }


def _mend_label(job: RepairJob, grid: Grid) -> dict[str, Any]:
    """Write the repaired label of a case on the grid of its image; the changes for the log."""
    case, out = job.case, Path(job.out)
    # Convert the labels to the cohort's values.
    label = map_label(read_raw_label(case, job.manifest), job.manifest)
    label = label.on_grid(grid) or label
    before = {"shape": list(label.grid.shape), "affine": label.grid.affine.tolist()}
    # Both repairs end on the image's grid; copying the affine keeps the array.
    array = label.array
    if RESAMPLE in job.ways:
        array = nearest(array, label.grid, grid)
    elif array.shape != grid.shape:
        raise GeometryError(
            f"the label has shape {array.shape}, the image {grid.shape}", case=case.id
        )
    path = out / "labels" / f"{case.id}.nii.gz"
    files.write(Volume(array, grid, "label", label.source), path, labels=job.manifest.labels)
    # The log entry shows the change: grids and voxel counts before and after.
    return {
        "label_from": [s.path for s in case.label],
        "label": str(path),
        "label_grid_before": before,
        "label_grid_after": {"shape": list(grid.shape), "affine": grid.affine.tolist()},
        "voxels_before": _counts(label.array),
        "voxels_after": _counts(array),
    }


def _counts(array: NDArray[Any]) -> dict[str, int]:
    counts = np.bincount(array.ravel(order="K"))
    return {str(v): int(counts[v]) for v in np.flatnonzero(counts) if v}


def plan_mending(
    manifest: Manifest, ways: Mapping[str, Sequence[str]], out: str | Path
) -> list[RepairJob]:
    """The cases to write: every case that needs a repair, and every case with ground truth if the
    cohort's values are remapped.

    Args:
        manifest: the cases that will be usable.
        ways: case -> the repairs that the checks proposed.
        out: the output folder.
    """
    # A manifest has one mapping, so remapped and original labels cannot be mixed.
    remapped = manifest.mapping != LabelMapping()
    header = replace(manifest, cases=())
    jobs = []
    for case in manifest:
        chosen = (*ways.get(case.id, ()), *((REMAP,) if remapped and case.label else ()))
        if chosen:
            jobs.append(RepairJob(case, header, chosen, str(Path(out).resolve())))
    return jobs


def one_patient(
    manifest: Manifest, groups: Sequence[Sequence[str]]
) -> tuple[Manifest, dict[str, str]]:
    """The manifest in which the patients of each group are the first of them, and old -> new id.

    Groups that share a patient become one. A group whose cases are on several sides of a stated
    split is left as it is.
    """
    new = {case.patient: case.patient for case in manifest}
    for group in groups:
        known = [new[patient] for patient in group if patient in new]
        sides = {case.split for case in manifest if case.split and new[case.patient] in known}
        if known and len(sides) < 2:
            new = {old: known[0] if one in known else one for old, one in new.items()}
    cases = tuple(replace(case, patient=new[case.patient]) for case in manifest)
    return replace(manifest, cases=cases), {old: one for old, one in new.items() if old != one}


def targets(manifest: Manifest, out: str | Path) -> Iterator[Path]:
    """Every file that a repair may write."""
    folder = Path(out)
    yield from (folder / name for name in ("changes.json", "manifest.jsonl"))
    for case in manifest:
        yield from (folder / part / f"{case.id}.nii.gz" for part in ("images", "labels"))


def refuse_originals(manifest: Manifest, out: str | Path) -> None:
    """Refuse an output folder that contains original files.

    Raises:
        OutputError: an original is in ``out`` or in a folder below it.
    """
    target = Path(out).resolve()
    for case in manifest:
        for one in (*case.images, *case.label):
            if Path(one.path).resolve().is_relative_to(target):
                raise OutputError(
                    "repaired copies need their own folder; this one contains originals",
                    path=target,
                )


def write_mended(
    manifest: Manifest,
    changes: Sequence[Mapping[str, Any]],
    failures: Sequence[DelineateError],
    out: str | Path,
    patients: Mapping[str, str] | None = None,
) -> Manifest:
    """Write the repaired cohort's ``manifest.jsonl`` and ``changes.json``.

    Args:
        manifest: the cases that should be usable.
        changes: log entries of ``mend_case``.
        failures: errors of the cases that could not be repaired; these cases are left out.
        out: the output folder.
        patients: old -> new id of patients that became one.

    Returns:
        The manifest that was written; repaired cases point to their copies.
    """
    target = Path(out).resolve()
    # Repaired cases point to their copies, the others to their originals; failed ones are left out.
    log = {entry["case"]: entry for entry in changes}
    failed = {error.case for error in failures}
    mended = [_mended(case, log.get(case.id)) for case in manifest if case.id not in failed]
    # Remapped labels already have the cohort's values, so they need no mapping any more.
    ignored = (IGNORED,) if manifest.mapping.ignore else ()
    remapped = any(REMAP in entry["ways"] for entry in changes)
    plain = LabelMapping(ignore=ignored) if remapped else manifest.mapping
    result = replace(manifest, cases=tuple(mended), mapping=plain, root=str(target))
    logged = {
        "changes": list(changes),
        "failed": [str(e) for e in failures],
        "patients": dict(patients or {}),
    }
    atomic.write_json(target / "changes.json", logged)
    atomic.write_text(target / "manifest.jsonl", result.to_jsonl())
    return result


def _mended(case: Case, entry: Mapping[str, Any] | None) -> Case:
    if entry is None:
        return case
    label = (source(Path(entry["label"])),) if "label" in entry else ()
    return replace(case, images=(source(Path(entry["image"])),), label=label)
