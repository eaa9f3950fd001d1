"""What is wrong with a case: one small function a check, each returning findings.

``examine`` opens a case's files once and keeps a small summary (an ``Examination``) with the
findings that the case alone can tell; ``compare.py`` looks across all summaries. Nothing is changed
here; ``repair.py`` mends what ``mend`` names.

Left and right are judged in RAS+ mm, where x grows towards the patient's right, and only where a
file carries a place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...core.errors import DelineateError, LabelError
from ...core.grid import GRID_TOLERANCE_MM, Grid
from ...core.labels import LabelSet, as_whole_numbers, unique_values
from ...core.manifest import Case, Manifest, Source
from ...core.volume import Volume
from ..findings import Finding, Severity
from ..reading import difference, map_label, read_image, read_raw_label
from .repair import COPY_AFFINE, RESAMPLE, way_to_mend

ROUNDING_MM = 0.01  # grids nearer than this are the same
SIDE_MM = (
    3.0  # a structure must stand at least this far on the wrong side of its partner to be suspect
)
HU_LIMITS = (-10_000.0, 70_000.0)  # beyond these no CT value is real


@dataclass(frozen=True)
class ChannelStatistics:
    """Facts of one channel; ``p99`` is the 99th percentile of at most some 100,000 voxels."""

    dtype: str
    low: float
    high: float
    p99: float
    not_finite: int


@dataclass(frozen=True)
class Examination:
    """What is kept of a case after its files were read once; parts that could not be read are
    empty.

    Args:
        case: its id.
        patient: as the manifest has it.
        grid: the image's.
        placed: whether the image's file carries a place in the patient.
        spaced: whether it carries a spacing.
        channels: facts of each.
        unit: of the image.
        sha256: of the image's voxels and shape.
        dicom_patient: PatientID in the files, "" where there is none.
        labelled: whether the truth could be read.
        voxels: value -> voxels of the truth after the mapping.
        label_grid: the truth's grid.
        findings: what the case alone tells.
    """

    case: str
    patient: str
    grid: Grid | None = None
    placed: bool = True
    spaced: bool = True
    channels: tuple[ChannelStatistics, ...] = ()
    unit: str = ""
    sha256: str = ""
    dicom_patient: str = ""
    labelled: bool = False
    voxels: dict[int, int] = field(default_factory=dict)
    label_grid: Grid | None = None
    findings: tuple[Finding, ...] = ()


# ---- one case ----


def examine(job: tuple[Case, Manifest]) -> Examination:
    """Read a case's image and truth once and summarise them; unreadable files become findings, not
    exceptions.

    Args:
        job: the case, and the cohort's manifest (its cases are not used, so it may have none).
    """
    case, manifest = job
    found = Examination(case.id, case.patient)
    image: Volume | None = None
    try:
        image = read_image(case, manifest)
        found = _summary(found, image)
    except DelineateError as error:
        found = _with(found, [Finding(case.id, "unreadable", "error", str(error))])
    if image is not None:
        found = _with(found, [f for check in IMAGE_CHECKS for f in check(found)])
    return _examine_label(found, case, manifest, image) if case.label else found


def _summary(found: Examination, image: Volume) -> Examination:
    digest = hashlib.sha256(str(image.array.shape).encode())
    digest.update(np.ascontiguousarray(image.array).data)
    meta = image.meta
    return replace(
        found,
        grid=image.grid,
        placed=bool(meta.get("place_known", True)),
        spaced=bool(meta.get("spacing_known", True)),
        channels=tuple(_channel(a) for a in image.array),
        unit=image.unit,
        sha256=digest.hexdigest(),
        dicom_patient=str(meta.get("patient", "") or ""),
    )


def _channel(array: NDArray[Any]) -> ChannelStatistics:
    flat = array.reshape(-1) if array.flags.c_contiguous else array.ravel(order="K")
    low, high = float(flat.min()), float(flat.max())
    lost = 0
    if not np.isfinite(low) or not np.isfinite(high):
        fine = np.isfinite(flat)
        lost = int(flat.size - fine.sum())
        flat = flat[fine] if fine.any() else np.zeros(1, flat.dtype)
        low, high = float(flat.min()), float(flat.max())
    return ChannelStatistics(
        str(array.dtype),
        low,
        high,
        float(np.percentile(flat[:: max(1, flat.size // 100_000)], 99)),
        lost,
    )


def _are_whole(raw: list[tuple[Source, Volume]]) -> bool:
    """Whether all label values are whole numbers, so that they could be named or merged."""
    try:
        return all(as_whole_numbers(volume.array) is not None for _, volume in raw)
    except LabelError:
        return False


def _examine_label(
    found: Examination, case: Case, manifest: Manifest, image: Volume | None
) -> Examination:
    try:
        raw = read_raw_label(case, manifest)
    except DelineateError as error:
        return _with(found, [Finding(case.id, "unreadable", "error", str(error))])
    found = replace(found, label_grid=raw[0][1].grid)
    try:
        label = map_label(raw, manifest)
    except LabelError as error:
        whole = _are_whole(raw)
        hint = "; name, merge or leave out values with --labels" if whole else ""
        where = "" if error.path is None or (whole and len(raw) == 1) else f"{error.path}: "
        data = {"values": _values(raw[0][1].array)}
        return _with(
            found, [Finding(case.id, "values", "error", f"{where}{error.message}{hint}", data)]
        )
    except DelineateError as error:
        return _with(found, [Finding(case.id, "geometry", "error", str(error))])
    counts = np.bincount(label.array.ravel(order="K"), minlength=1)
    found = replace(
        found, labelled=True, voxels={int(v): int(counts[v]) for v in np.flatnonzero(counts) if v}
    )
    checks = [
        *check_place(found, label.array),
        *check_empty(found),
        *check_values(found, raw[0][1], manifest),
    ]
    if image is not None and image.grid.matches(label.grid):
        checks += check_sides(found, label, image, manifest.labels)
    return _with(found, checks)


def _with(found: Examination, findings: Sequence[Finding]) -> Examination:
    return replace(found, findings=(*found.findings, *findings))


def _values(array: NDArray[Any]) -> list[float]:
    return [float(v) for v in np.unique(array)[:50]]


def check_constant(found: Examination) -> list[Finding]:
    """A channel whose voxels all have one value."""
    return [
        Finding(
            found.case,
            "constant",
            "error",
            f"all voxels of channel {n} have the value {c.low:g}",
            {"channel": n, "value": c.low},
        )
        for n, c in enumerate(found.channels)
        if c.low == c.high
    ]


def check_finite(found: Examination) -> list[Finding]:
    """Voxels that are NaN or infinite."""
    findings = []
    for n, c in enumerate(found.channels):
        if c.not_finite:
            message = f"{c.not_finite} voxels of channel {n} are NaN or infinite"
            findings.append(
                Finding(
                    found.case,
                    "not-finite",
                    "error",
                    message,
                    {"channel": n, "voxels": c.not_finite},
                )
            )
    return findings


def check_hu(found: Examination) -> list[Finding]:
    """CT values that no scanner gives."""
    low, high = HU_LIMITS
    findings = []
    for c in found.channels:
        if found.unit == "HU" and (c.low < low or c.high > high):
            message = (
                f"CT values from {c.low:g} to {c.high:g} HU; metal and padding stay within "
                f"{low:g} to {high:g}"
            )
            findings.append(
                Finding(found.case, "intensity", "warning", message, {"low": c.low, "high": c.high})
            )
    return findings


IMAGE_CHECKS: tuple[Callable[[Examination], list[Finding]], ...] = (
    check_constant,
    check_finite,
    check_hu,
)


def check_place(found: Examination, label: NDArray[Any]) -> list[Finding]:
    """A truth that does not stand on the image's grid; the distance is that of the farthest corner,
    in mm.
    """
    grid, other = found.grid, found.label_grid
    if grid is None or other is None or grid.matches(other, ROUNDING_MM):
        return []
    distance = other.distance_mm(grid)
    data = {
        "image_shape": list(grid.shape),
        "label_shape": list(other.shape),
        "distance_mm": None if np.isinf(distance) else distance,
    }
    mend, why = way_to_mend(grid, other, label, placed=found.placed)
    severity: Severity = "note" if distance <= GRID_TOLERANCE_MM else "error"
    words = {
        COPY_AFFINE: "--fix gives it the image's affine",
        RESAMPLE: "--fix resamples it onto the image's grid",
    }.get(mend or "", "it cannot be mended")
    return [
        Finding(
            found.case,
            "geometry",
            severity,
            f"label and image geometry differ: {difference(other, grid)}; {words} ({why})",
            data,
            mend,
        )
    ]


def check_empty(found: Examination) -> list[Finding]:
    """A truth without any structure; common among single slices, rare among volumes."""
    if found.voxels:
        return []
    flat = found.label_grid is not None and found.label_grid.shape[2] == 1
    return [
        Finding(
            found.case,
            "empty",
            "note" if flat else "warning",
            "the label holds no structure at all",
        )
    ]


def check_values(found: Examination, raw: Volume, manifest: Manifest) -> list[Finding]:
    """Values that a mapping turned into background, and label values stored as fractions."""
    mapping = manifest.mapping
    if mapping.rest != "background" or not mapping.values or raw.array.ndim != 3:
        return []
    known = {source for source, _ in mapping.values} | {0}
    others = sorted(set(unique_values(as_whole_numbers(raw.array))) - known)
    return (
        [
            Finding(
                found.case,
                "rest",
                "note",
                f"values {others[:10]} became background",
                {"values": others},
            )
        ]
        if others
        else []
    )


def check_sides(
    found: Examination, label: Volume, image: Volume, labels: LabelSet
) -> list[Finding]:
    """Sided structures on the wrong side: of their partner, or of the middle of what the image
    shows where they have none.
    """
    if not found.placed or label.grid.shape[2] == 1:
        return []
    sided = [b for b in labels if b.side and found.voxels.get(b.value)]
    if not sided:
        return []
    x = _centroids_x(label, [b.value for b in sided])
    pairs = [(left, right) for left, right in labels.pairs if left in x and right in x]
    wrong = {
        v: x[left] - x[right]
        for left, right in pairs
        if x[left] - x[right] > SIDE_MM
        for v in (left, right)
    }
    paired = {v for pair in pairs for v in pair}
    alone = [b for b in sided if b.value not in paired]
    if alone:
        middle, width = _body_x(image)
        for b in alone:
            beyond = (x[b.value] - middle) * (1 if b.side == "left" else -1)
            if beyond > max(SIDE_MM, 0.1 * width):
                wrong[b.value] = beyond
    if not wrong:
        return []
    names = [b.name for b in sided if b.value in wrong]
    most = max(wrong.values())
    shown = ", ".join(names[:6]) + (" ..." if len(names) > 6 else "")
    message = (
        f"{shown} stand up to {most:.0f} mm on the wrong side; left and right may be "
        "exchanged, in the labels or in the affine"
    )
    return [
        Finding(
            found.case, "side", "warning", message, {"names": names, "mm": most, "of": len(sided)}
        )
    ]


def _centroids_x(label: Volume, values: Sequence[int]) -> dict[int, float]:
    """Value -> x of its centroid in RAS+ mm; one pass over the voxels."""
    where = np.nonzero(label.array)
    held = label.array[where]
    row = label.grid.affine[0]
    x = sum(row[axis] * index for axis, index in enumerate(where)) + row[3]
    total, count = np.bincount(held, weights=x), np.bincount(held)
    return {v: float(total[v] / count[v]) for v in values if v < len(count) and count[v]}


def _body_x(image: Volume) -> tuple[float, float]:
    """Middle and width in mm, along x, of the voxels brighter than the mean (of every fourth
    voxel).
    """
    array = image.channels_array[0][::4, ::4, ::4]
    bright = np.argwhere(array > array.mean()) * 4
    if not len(bright):
        return float(image.grid.centre_mm[0]), 0.0
    x = image.grid.to_mm(bright)[:, 0]
    low, high = np.percentile(x, (1, 99))
    return float(low + high) / 2, float(high - low)
