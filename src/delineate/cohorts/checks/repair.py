"""Mended copies of a cohort: OUT/images, OUT/labels, OUT/manifest.jsonl and a log of every change.
Originals stay untouched.

What is mended, and by which rule:
  copy affine   shapes are equal, and the label's affine differs from the image's by less than half
                a voxel (resampling would return the same array), or it is a bare default (axes
                along the world's, first voxel at the origin or the block centred on it), which
                carries no place, while the image's is not
  resample      otherwise, where at least 90 % of the label's foreground falls inside the image: by
                nearest neighbour through both affines
  remap         values, ranges, colours or files become the cohort's own values
Everything else is left to a person. Where values are remapped, every label is written, as a
manifest has one mapping.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...core import atomic
from ...core.errors import DelineateError, GeometryError, OutputError
from ...core.grid import Grid
from ...core.labels import LabelMapping
from ...core.manifest import Case, Manifest
from ...core.volume import Volume
from ...formats import files
from ..discovery.tree import source
from ..reading import map_label, read_image, read_raw_label

COPY_AFFINE, RESAMPLE, REMAP = "copy affine", "resample", "remap"
OVERLAP = (
    0.9  # of the label's foreground that must fall inside the image for resampling to make sense
)


@dataclass(frozen=True)
class RepairJob:
    """One case to mend: what to do and where to."""

    case: Case
    manifest: Manifest
    ways: tuple[str, ...]
    out: str


def way_to_mend(
    image: Grid, label: Grid, array: NDArray[Any], *, placed: bool = True
) -> tuple[str | None, str]:
    """How a label (I, J, K) on the grid ``label`` gets onto the grid ``image``: one of the ways
    above or None, and the reason.
    """
    if image.shape == label.shape:
        distance = label.distance_mm(image)
        if distance <= min(image.spacing_mm) / 2:
            return COPY_AFFINE, "less than half a voxel"
        if is_default(label) and (not is_default(image) or not placed):
            return COPY_AFFINE, "its affine is a bare default, which carries no place"
    inside = share_inside(image, label, array)
    if inside >= OVERLAP:
        return RESAMPLE, f"{100 * inside:.0f} % of its foreground falls inside the image"
    return None, f"only {100 * inside:.0f} % of its foreground falls inside the image"


def is_default(grid: Grid) -> bool:
    """Whether the affine looks never set: axes along the world's, and the first voxel at the origin
    or the block centred on it.
    """
    matrix = np.abs(grid.affine[:3, :3])
    if not np.allclose(matrix, np.diag(np.diag(matrix)), atol=1e-4):
        return False
    return bool(
        np.allclose(grid.affine[:3, 3], 0, atol=1e-4)
        or np.allclose(grid.centre_mm, 0, atol=0.51 * max(grid.spacing_mm))
    )


def share_inside(image: Grid, label: Grid, array: NDArray[Any]) -> float:
    """Part (0..1) of the label's foreground voxels whose centres fall on the image's grid; 0 where
    there are none.
    """
    points = np.argwhere(array > 0)
    if not len(points):
        return 0.0
    index = image.to_index(label.to_mm(points[:: max(1, len(points) // 100_000)]))
    return float(((index > -0.5) & (index < np.array(image.shape) - 0.5)).all(axis=1).mean())


def nearest(array: NDArray[Any], grid: Grid, target: Grid) -> NDArray[Any]:
    """The label (I, J, K) on ``grid`` brought to ``target``: each voxel takes the nearest one's
    value, 0 outside; slice by slice.
    """
    out = np.zeros(target.shape, dtype=array.dtype)
    i, j = np.meshgrid(np.arange(target.shape[0]), np.arange(target.shape[1]), indexing="ij")
    limit = np.array(grid.shape)
    for k in range(target.shape[2]):
        index = np.rint(
            grid.to_index(target.to_mm(np.stack([i, j, np.full_like(i, k)], axis=-1)))
        ).astype(np.int64)
        inside = ((index >= 0) & (index < limit)).all(axis=-1)
        chosen = index[inside]
        out[..., k][inside] = array[chosen[:, 0], chosen[:, 1], chosen[:, 2]]
    return out


def mend_case(job: RepairJob) -> dict[str, Any]:
    """Write one case's mended copy and return its log entry; can be run again without harm.

    Raises:
        DelineateError: the case cannot be read or written.
    """
    case, out = job.case, Path(job.out)
    image = read_image(case, job.manifest)
    label = map_label(read_raw_label(case, job.manifest), job.manifest)
    before = {"shape": list(label.grid.shape), "affine": label.grid.affine.tolist()}
    array = label.array
    if RESAMPLE in job.ways:
        array = nearest(array, label.grid, image.grid)
    elif array.shape != image.grid.shape:
        raise GeometryError(
            f"the label has shape {array.shape}, the image {image.grid.shape}", case=case.id
        )
    image_path, label_path = (
        out / "images" / f"{case.id}.nii.gz",
        out / "labels" / f"{case.id}.nii.gz",
    )
    files.write(image if image.channels > 1 else image.with_array(image.array[0]), image_path)
    files.write(
        Volume(array, image.grid, "label", label.source), label_path, labels=job.manifest.labels
    )
    return {
        "case": case.id,
        "ways": list(job.ways),
        "image_from": [s.path for s in case.images],
        "label_from": [s.path for s in case.label],
        "image": str(image_path),
        "label": str(label_path),
        "label_grid_before": before,
        "label_grid_after": {"shape": list(image.grid.shape), "affine": image.grid.affine.tolist()},
        "voxels_before": _counts(label.array),
        "voxels_after": _counts(array),
    }


def _counts(array: NDArray[Any]) -> dict[str, int]:
    counts = np.bincount(array.ravel(order="K"))
    return {str(v): int(counts[v]) for v in np.flatnonzero(counts) if v}


def plan_mending(
    manifest: Manifest, ways: Mapping[str, Sequence[str]], out: str | Path
) -> list[RepairJob]:
    """The cases to write: those with a way to mend, and all with truth where the cohort's values
    are remapped.

    Args:
        manifest: of the cases that will be usable.
        ways: case -> ways that the doctor named.
        out: the folder to write to.
    """
    remapped = manifest.mapping != LabelMapping()
    header = replace(manifest, cases=())
    jobs = []
    for case in manifest:
        chosen = (*ways.get(case.id, ()), *((REMAP,) if remapped and case.label else ()))
        if chosen:
            jobs.append(RepairJob(case, header, chosen, str(Path(out).resolve())))
    return jobs


def targets(manifest: Manifest, out: str | Path) -> Iterator[Path]:
    """Every file that mending may write."""
    folder = Path(out)
    yield from (folder / name for name in ("changes.json", "manifest.jsonl"))
    for case in manifest:
        yield from (folder / part / f"{case.id}.nii.gz" for part in ("images", "labels"))


def refuse_originals(manifest: Manifest, out: str | Path) -> None:
    """Refuse a folder for copies that is, holds, or lies in the place of the originals.

    Raises:
        OutputError: it does.
    """
    target = Path(out).resolve()
    for case in manifest:
        for one in (*case.images, *case.label):
            if Path(one.path).resolve().is_relative_to(target):
                raise OutputError(
                    "mended copies go into a folder of their own: originals lie in this one",
                    path=target,
                )


def write_mended(
    manifest: Manifest,
    changes: Sequence[Mapping[str, Any]],
    failures: Sequence[DelineateError],
    out: str | Path,
) -> Manifest:
    """Write ``manifest.jsonl`` of the mended cohort (mended cases point to their copies) and
    ``changes.json``; returns the manifest.
    """
    target = Path(out).resolve()
    log = {entry["case"]: entry for entry in changes}
    failed = {error.case for error in failures}
    mended = [_mended(case, log.get(case.id)) for case in manifest if case.id not in failed]
    plain = LabelMapping() if any(REMAP in entry["ways"] for entry in changes) else manifest.mapping
    result = replace(manifest, cases=tuple(mended), mapping=plain, root=str(target))
    atomic.write_text(
        target / "changes.json",
        json.dumps({"changes": list(changes), "failed": [str(e) for e in failures]}, indent=1),
    )
    atomic.write_text(target / "manifest.jsonl", result.to_jsonl())
    return result


def _mended(case: Case, entry: Mapping[str, Any] | None) -> Case:
    if entry is None:
        return case
    return replace(
        case, images=(source(Path(entry["image"])),), label=(source(Path(entry["label"])),)
    )
