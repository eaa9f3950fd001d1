"""Checks of a single case: one small function per check, each returning findings.

``examine`` opens a case's files once and keeps a small summary (an ``Examination``) together with
the findings of that case; ``across_cases.py`` compares the summaries of all cases. This module
changes no file; ``repair.py`` applies the repair that a finding names in ``mend``.

Left and right are checked in RAS+ mm, where x grows towards the patient's right, and only if the
file stores a position.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...core.errors import DelineateError, LabelError
from ...core.grid import Grid
from ...core.labels import IGNORED, LabelSet, as_whole_numbers, unique_values
from ...core.manifest import Case, Manifest, Source, Split
from ...core.volume import Volume
from ...extend.findings import Finding, Severity
from ...formats.dicom import tilt_of
from ..reading import difference, map_label, read_image, read_raw_label
from .alignment import Fit, fit_of
from .copies import Details, details_of
from .modalities import profiles_of
from .repair import COPY_AFFINE, FILL, RESAMPLE, way_to_mend
from .sides import body_x, wrong_sides
from .truths import Centres, centres_of, content_of, is_drawn

MOST_NOT_FINITE = 0.01  # a scan needs at least this share of finite voxels
VOLUMES_DIFFER = 0.1  # share by which volumes of contours and voxels may differ
HU_LIMITS = (-10_000.0, 70_000.0)  # values outside are not real CT values


@dataclass(frozen=True)
class ChannelStatistics:
    """Intensity statistics of one channel.

    Args:
        dtype: data type of the voxels.
        low, high: smallest and largest finite value.
        p99: 99th percentile of about 100,000 evenly spaced voxels (of all voxels if fewer).
        not_finite: number of voxels that are NaN or infinite.
    """

    dtype: str
    low: float
    high: float
    p99: float
    not_finite: int


@dataclass(frozen=True)
class Examination:
    """Summary of a case after its files were read once; parts that could not be read are empty.

    Args:
        case: id of the case.
        patient: patient id in the manifest.
        split: the side of a split that the layout states.
        grid: the image's grid.
        placed: whether the image's file stores a position in the patient.
        spaced: whether the image's file stores a spacing.
        channels: statistics of each channel.
        unit: unit of the image.
        sha256: hash of the image's voxels and shape.
        dicom_patient: PatientID in the files; "" if there is none.
        details: what identifies the scan by content (see ``copies``).
        labelled: whether the ground truth could be read.
        voxels: label value -> number of voxels, after the mapping; background and ignored voxels
            are left out.
        centres: label value -> centroid in RAS+ mm, if the image has a position and structures
            exclude each other.
        fit: whether the mask follows the edges of the image.
        mask: hash of the mask's voxels; "" if it is too small or simple to be compared.
        profiles: of the channels, if there are several (see ``modalities``).
        ignored: number of voxels that are ignored.
        label_grid: the grid of the ground truth.
        findings: the findings of this case.
    """

    case: str
    patient: str
    split: Split = None
    grid: Grid | None = None
    placed: bool = True
    spaced: bool = True
    channels: tuple[ChannelStatistics, ...] = ()
    unit: str = ""
    sha256: str = ""
    dicom_patient: str = ""
    details: tuple[Details, ...] = ()
    labelled: bool = False
    voxels: dict[int, int] = field(default_factory=dict)
    centres: Centres = field(default_factory=dict)
    fit: Fit | None = None
    mask: str = ""
    profiles: NDArray[np.float64] | None = None
    ignored: int = 0
    label_grid: Grid | None = None
    findings: tuple[Finding, ...] = ()


# ---- one case ----


def examine(job: tuple[Case, Manifest]) -> Examination:
    """Read a case's image and ground truth once and summarise them.

    An unreadable file becomes a finding, not an exception.

    Args:
        job: the case and the cohort's manifest (its cases are not used, so it may be empty).
    """
    case, manifest = job
    found = Examination(case.id, case.patient, case.split)
    # An unreadable image does not prevent the check of the labels.
    image: Volume | None = None
    try:
        image = read_image(case, manifest)
        found = _summary(found, image)
        found = _with(found, _of_reading(case.id, image))
    except DelineateError as error:
        found = _with(found, [Finding(case.id, "unreadable", "error", str(error))])
    if image is not None:
        found = _with(found, [f for check in IMAGE_CHECKS for f in check(found)])
    return _examine_label(found, case, manifest, image) if case.label else found


def _of_reading(case: str, image: Volume) -> list[Finding]:
    """What was noted or decided while the image was read; a tilt is that of ``check_shear``."""
    meta, tilt = image.meta, tilt_of(image.grid)
    of_reader = [n for n in meta.get("notes", ()) if not n.endswith(tilt)]
    notes = []
    if meta.get("alpha"):
        words = "the picture is partly transparent; its alpha channel is not used"
        notes.append(("intensity", words))
    if count := meta.get("resampled"):
        words = f"{count} channel(s) with a grid of their own are resampled to that of the first"
        notes.append(("geometry", words))
    if place := meta.get("place_from"):
        words = f"the image states no position; it has that of its label {place}"
        notes.append(("geometry", words))
    return [
        *(Finding(case, "series", "warning", words) for words in of_reader),
        *(Finding(case, kind, "note", words) for kind, words in notes),
    ]


def _summary(found: Examination, image: Volume) -> Examination:
    # The shape is part of the hash, so that equal bytes of another shape are no duplicate.
    digest = hashlib.sha256(str(image.array.shape).encode())
    digest.update(np.ascontiguousarray(image.array).data)
    meta = image.meta
    # Only formats without geometry set "place_known" and "spacing_known", hence the defaults.
    return replace(
        found,
        grid=image.grid,
        placed=bool(meta.get("place_known", True)),
        spaced=bool(meta.get("spacing_known", True)),
        channels=tuple(_channel(a) for a in image.array),
        unit=image.unit,
        sha256=digest.hexdigest(),
        dicom_patient=str(meta.get("patient", "") or ""),
        details=details_of(image),
    )


def _channel(array: NDArray[Any]) -> ChannelStatistics:
    flat = array.reshape(-1) if array.flags.c_contiguous else array.ravel(order="K")
    low, high = float(flat.min()), float(flat.max())
    lost = 0
    # NaN and infinity propagate to the minimum or maximum, so the slow path is rarely needed.
    if not np.isfinite(low) or not np.isfinite(high):
        fine = np.isfinite(flat)
        lost = int(flat.size - fine.sum())
        flat = flat[fine] if fine.any() else np.zeros(1, flat.dtype)
        low, high = float(flat.min()), float(flat.max())
    # The percentile uses every n-th voxel, because sorting all voxels would be slow.
    return ChannelStatistics(
        str(array.dtype),
        low,
        high,
        float(np.percentile(flat[:: max(1, flat.size // 100_000)], 99)),
        lost,
    )


def _are_whole(raw: list[tuple[Source, Volume]]) -> bool:
    """Whether all label values are whole numbers, so that ``--labels`` could name or merge them."""
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
    # The grid is known even if the values cannot be used.
    found = replace(found, label_grid=raw[0][1].grid)
    notes = [finding for _, volume in raw for finding in _of_contours(case.id, volume)]
    try:
        label = map_label(raw, manifest)
    except LabelError as error:
        # Only whole numbers can be repaired with --labels. The file is named if it is not obvious.
        whole = _are_whole(raw)
        hint = "; name, merge or drop values with --labels" if whole else ""
        where = "" if error.path is None or (whole and len(raw) == 1) else f"{error.path}: "
        data = {"values": _values(raw[0][1].array)}
        return _with(
            found, [Finding(case.id, "values", "error", f"{where}{error.message}{hint}", data)]
        )
    except DelineateError as error:
        return _with(found, [Finding(case.id, "geometry", "error", str(error))])
    placed = None if image is None else label.on_grid(image.grid)
    if image is not None and placed is not None and not image.grid.matches(label.grid):
        notes.append(Finding(case.id, "geometry", "note", f"the label {_placing(label, image)}"))
        label, found = placed, replace(found, label_grid=image.grid)
    # The labels are usable: count the voxels per structure and run the checks.
    counts = np.bincount(label.array.ravel(order="K"), minlength=1)
    found = replace(
        found,
        labelled=True,
        voxels=_voxels(counts, manifest.labels),
        ignored=int(counts[IGNORED]) if len(counts) > IGNORED else 0,
    )
    checks = [
        *notes,
        *check_overlap(found, label, manifest.labels),
        *check_place(found, label.array),
        *check_empty(found),
        *check_values(found, raw[0][1], manifest),
    ]
    # Sides are compared with the image, so the grids must match.
    if image is not None and image.grid.matches(label.grid):
        checks += check_sides(found, label, image, manifest.labels)
        checks += check_drawn(found, label, image)
        found = replace(
            found,
            fit=fit_of(image.channels_array, label.array),
            mask=content_of(label.array),
            profiles=profiles_of(image.channels_array, label.array)
            if len(image.channels_array) > 1
            else None,
        )
        if found.placed and not manifest.labels.overlapping:
            found = replace(found, centres=centres_of(label.array, label.grid))
    return _with(found, checks)


def _of_contours(case: str, volume: Volume) -> list[Finding]:
    """What reading a label left out or had to assume, and volumes of contours that differ from
    those of their voxels by more than ``VOLUMES_DIFFER``.
    """
    notes = [str(note) for note in volume.meta.get("notes", ())]
    contours = volume.meta.get("contours", {})
    for name, facts in contours.items():
        ml, voxel_ml = facts["contour_ml"], facts["voxel_ml"]
        if abs(ml - voxel_ml) > VOLUMES_DIFFER * max(ml, voxel_ml):
            notes.append(
                f"{name}: {ml:.4g} ml by its contours, but {voxel_ml:.4g} ml by its voxels"
            )
    return [Finding(case, "contours", "warning", note, {"path": volume.source}) for note in notes]


def _voxels(counts: NDArray[np.int64], labels: LabelSet) -> dict[int, int]:
    """Value -> number of voxels of the structures that occur; ``counts`` are of a label map."""
    if not labels.overlapping:
        return {int(v): int(counts[v]) for v in np.flatnonzero(counts) if v not in (0, IGNORED)}
    codes = np.flatnonzero(counts)
    found = {b.value: int(counts[codes[labels.inside(codes, b)]].sum()) for b in labels}
    return {value: voxels for value, voxels in found.items() if voxels}


def _with(found: Examination, findings: Sequence[Finding]) -> Examination:
    return replace(found, findings=(*found.findings, *findings))


def _values(array: NDArray[Any]) -> list[float]:
    return [float(v) for v in np.unique(array)[:50]]


def check_overlap(found: Examination, label: Volume, labels: LabelSet) -> list[Finding]:
    """Masks of one case that overlap although a voxel can have only one structure. A structure
    inside another (a tumour in its organ) is usual, and only noted.
    """
    findings = []
    sizes = dict(zip(labels.names, (found.voxels.get(v, 0) for v in labels.values), strict=True))
    for (earlier, later), count in label.meta.get("covered", {}).items():
        inside = count >= sizes[later] and sizes[earlier] > 0
        findings.append(
            Finding(
                found.case,
                "overlap",
                "note" if inside else "warning",
                f"{count} voxels are {earlier} and {later}; they count as {later}, the later one, "
                f"and {earlier} keeps {sizes[earlier]} voxels"
                + ("" if inside else "; `overlapping: true` in a --labels file keeps both"),
                {"structures": [earlier, later], "voxels": count},
            )
        )
    return findings


def check_constant(found: Examination) -> list[Finding]:
    """Report each channel in which all voxels have the same value."""
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
    """Report voxels that are NaN or infinite. They count as background in training and prediction;
    a scan with hardly any other voxel is an error.
    """
    findings = []
    voxels = 0 if found.grid is None else int(np.prod(found.grid.shape))
    for n, c in enumerate(found.channels):
        if not c.not_finite:
            continue
        few = voxels - c.not_finite < MOST_NOT_FINITE * voxels
        message = f"{c.not_finite} of {voxels} voxels of channel {n} are NaN or infinite; " + (
            "nearly nothing is left" if few else "they count as background; --fix fills them"
        )
        findings.append(
            Finding(
                found.case,
                "not-finite",
                "error" if few else "warning",
                message,
                {"channel": n, "voxels": c.not_finite},
                None if few else FILL,
            )
        )
    return findings


def check_hu(found: Examination) -> list[Finding]:
    """Report CT values that no scanner produces."""
    low, high = HU_LIMITS
    findings = []
    for c in found.channels:
        if found.unit == "HU" and (c.low < low or c.high > high):
            message = (
                f"CT values from {c.low:g} to {c.high:g} HU; even metal and padding are within "
                f"{low:g} to {high:g} HU"
            )
            findings.append(
                Finding(found.case, "intensity", "warning", message, {"low": c.low, "high": c.high})
            )
    return findings


def check_shear(found: Examination) -> list[Finding]:
    """Note a scan whose axes are not at right angles."""
    if found.grid is None or not found.grid.is_sheared:
        return []
    degrees = found.grid.shear_deg
    message = (
        f"the axes are up to {degrees:.1f} degrees off a right angle (a tilted gantry, or the "
        "affine of a registration); the grid is kept, and the scan is resampled once when it is "
        "prepared"
    )
    return [Finding(found.case, "sheared", "note", message, {"degrees": degrees})]


IMAGE_CHECKS: tuple[Callable[[Examination], list[Finding]], ...] = (
    check_shear,
    check_constant,
    check_finite,
    check_hu,
)


def _placing(label: Volume, image: Volume) -> str:
    """How a label comes to the grid of its image without resampling."""
    if not label.meta.get("spacing_known", True):
        return "states no spacing, and gets the image's"
    return f"has {difference(label.grid, image.grid)}; it is placed without resampling"


def check_place(found: Examination, label: NDArray[Any]) -> list[Finding]:
    """Report labels that are not on the image's grid, with the possible repair.

    The distance is the largest distance between corresponding corners, in mm.
    """
    grid, other = found.grid, found.label_grid
    if grid is None or other is None or grid.matches(other, grid.tolerance_mm / 10):
        return []
    distance = other.distance_mm(grid)
    data = {
        "image_shape": list(grid.shape),
        "label_shape": list(other.shape),
        "distance_mm": None if np.isinf(distance) else distance,
    }
    # Small differences are only a note, but the repair is offered for them too.
    mend, why = way_to_mend(grid, other, label, placed=found.placed)
    severity: Severity = "note" if distance <= grid.tolerance_mm else "error"
    repair = {
        COPY_AFFINE: "--fix copies the image's affine",
        RESAMPLE: "--fix resamples the label to the image's grid",
    }.get(mend or "", "it cannot be repaired automatically")
    return [
        Finding(
            found.case,
            "geometry",
            severity,
            f"label and image geometry differ: {difference(other, grid)}; {repair} ({why})",
            data,
            mend,
        )
    ]


def check_empty(found: Examination) -> list[Finding]:
    """Report ground truth without any structure: a note for a single slice, where this is common,
    else a warning.
    """
    if found.voxels:
        return []
    flat = found.label_grid is not None and found.label_grid.shape[2] == 1
    return [
        Finding(
            found.case,
            "empty",
            "note" if flat else "warning",
            "the label is empty: it contains no structure",
        )
    ]


def check_values(found: Examination, raw: Volume, manifest: Manifest) -> list[Finding]:
    """Report label values that the mapping turned into background."""
    mapping = manifest.mapping
    if mapping.rest != "background" or not mapping.values or raw.array.ndim != 3:
        return []
    # Values without a rule, except background.
    known = {source for source, _ in mapping.values} | {0, *mapping.ignore}
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


def check_drawn(found: Examination, label: Volume, image: Volume) -> list[Finding]:
    """Report an image that repeats its mask, which tells more than any scan can."""
    if not is_drawn(image.channels_array, label.array):
        return []
    words = "the image shows its own mask: one value inside each structure, and nowhere else"
    return [Finding(found.case, "drawn", "warning", words)]


def check_sides(
    found: Examination, label: Volume, image: Volume, labels: LabelSet
) -> list[Finding]:
    """Report sided structures on the wrong side.

    A structure with a partner is compared with that partner. A structure without one is compared
    with the middle of the body in the image.
    """
    # Without a position, or in a single slice, x does not mean left and right.
    if not found.placed or label.grid.shape[2] == 1:
        return []
    sided = [b for b in labels if b.side and found.voxels.get(b.value)]
    if not sided:
        return []
    wrong = wrong_sides(label, labels, *body_x(image))
    if not wrong:
        return []
    names = [b.name for b in sided if b.value in wrong]
    most = max(wrong.values())
    shown = ", ".join(names[:6]) + (" ..." if len(names) > 6 else "")
    message = (
        f"{shown}: up to {most:.0f} mm on the wrong side; left and right may be exchanged in the "
        "labels or in the affine"
    )
    return [
        Finding(
            found.case, "side", "warning", message, {"names": names, "mm": most, "of": len(sided)}
        )
    ]
