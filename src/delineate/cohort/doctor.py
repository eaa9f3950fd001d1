"""What is wrong with a cohort: one small function a check, each returning findings.

``examine`` opens a case's files once and keeps a small summary (an ``Examination``) with the findings that the case
alone can tell; ``compare`` looks across all summaries. Nothing is changed here; ``repair.py`` mends what ``mend`` names.

Left and right are judged in RAS+ mm, where x grows towards the patient's right, and only where a file carries a place.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import DelineateError, LabelError
from ..core.grid import Grid
from ..core.labels import LabelSet
from ..core.manifest import Case, Manifest
from ..core.volume import Volume
from .cases import TOLERANCE_MM, difference, map_label, read_image, read_raw_label
from .findings import Finding, Severity
from .repair import COPY_AFFINE, RESAMPLE, way_to_mend

ROUNDING_MM = 0.01  # grids nearer than this are the same
SIDE_MM = 3.0  # a structure must stand at least this far on the wrong side of its partner to be suspect
RANGE_RATIO = 20.0  # intensities of one cohort differ by at most this factor, or are called extreme
OUTLIER_Z = 6.0  # robust z score beyond which a spacing or size is an outlier
FEW = 8  # fewer cases than this have no outliers
HU_LIMITS = (-10_000.0, 70_000.0)  # beyond these no CT value is real


@dataclass(frozen=True)
class Channel:
    """Facts of one channel; ``p99`` is the 99th percentile of at most some 100,000 voxels."""

    dtype: str
    low: float
    high: float
    p99: float
    not_finite: int


@dataclass(frozen=True)
class Examination:
    """What is kept of a case after its files were read once; parts that could not be read are empty.

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
    channels: tuple[Channel, ...] = ()
    unit: str = ""
    sha256: str = ""
    dicom_patient: str = ""
    labelled: bool = False
    voxels: dict[int, int] = field(default_factory=dict)
    label_grid: Grid | None = None
    findings: tuple[Finding, ...] = ()


# ---- one case ----


def examine(job: tuple[Case, Manifest]) -> Examination:
    """Read a case's image and truth once and summarise them; unreadable files become findings, not exceptions.

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
    digest.update(memoryview(np.ascontiguousarray(image.array)))
    meta = image.meta
    return replace(found, grid=image.grid, placed=bool(meta.get("place_known", True)), spaced=bool(meta.get("spacing_known", True)),
                   channels=tuple(_channel(a) for a in image.array), unit=image.unit, sha256=digest.hexdigest(),
                   dicom_patient=str(meta.get("patient", "") or ""))  # fmt: skip


def _channel(array: NDArray[Any]) -> Channel:
    flat = array.reshape(-1) if array.flags.c_contiguous else array.ravel(order="K")
    low, high = float(flat.min()), float(flat.max())
    lost = 0
    if not np.isfinite(low) or not np.isfinite(high):
        fine = np.isfinite(flat)
        lost = int(flat.size - fine.sum())
        flat = flat[fine] if fine.any() else np.zeros(1, flat.dtype)
        low, high = float(flat.min()), float(flat.max())
    return Channel(str(array.dtype), low, high, float(np.percentile(flat[:: max(1, flat.size // 100_000)], 99)), lost)


def _examine_label(found: Examination, case: Case, manifest: Manifest, image: Volume | None) -> Examination:
    try:
        raw = read_raw_label(case, manifest)
    except DelineateError as error:
        return _with(found, [Finding(case.id, "unreadable", "error", str(error))])
    found = replace(found, label_grid=raw[0][1].grid)
    try:
        label = map_label(raw, manifest)
    except LabelError as error:
        data = {"values": _values(raw[0][1].array)}
        return _with(found, [Finding(case.id, "values", "error", f"{error.message}; name, merge or leave out values with --labels", data)])
    except DelineateError as error:
        return _with(found, [Finding(case.id, "geometry", "error", str(error))])
    counts = np.bincount(label.array.ravel(order="K"), minlength=1)
    found = replace(found, labelled=True, voxels={int(v): int(counts[v]) for v in np.flatnonzero(counts) if v})
    checks = [*check_place(found, label.array), *check_empty(found), *check_values(found, raw[0][1], manifest)]
    if image is not None and image.grid.matches(label.grid, TOLERANCE_MM):
        checks += check_sides(found, label, image, manifest.labels)
    return _with(found, checks)


def _with(found: Examination, findings: Sequence[Finding]) -> Examination:
    return replace(found, findings=(*found.findings, *findings))


def _values(array: NDArray[Any]) -> list[float]:
    return [float(v) for v in np.unique(array)[:50]]


def check_constant(found: Examination) -> list[Finding]:
    """A channel whose voxels all have one value."""
    return [Finding(found.case, "constant", "error", f"all voxels of channel {n} have the value {c.low:g}", {"channel": n, "value": c.low})
            for n, c in enumerate(found.channels) if c.low == c.high]  # fmt: skip


def check_finite(found: Examination) -> list[Finding]:
    """Voxels that are NaN or infinite."""
    return [Finding(found.case, "not-finite", "error", f"{c.not_finite} voxels of channel {n} are NaN or infinite", {"channel": n, "voxels": c.not_finite})
            for n, c in enumerate(found.channels) if c.not_finite]  # fmt: skip


def check_hu(found: Examination) -> list[Finding]:
    """CT values that no scanner gives."""
    return [Finding(found.case, "intensity", "warning", f"CT values from {c.low:g} to {c.high:g} HU; metal and padding stay within {HU_LIMITS[0]:g} to "
                    f"{HU_LIMITS[1]:g}", {"low": c.low, "high": c.high})
            for c in found.channels if found.unit == "HU" and (c.low < HU_LIMITS[0] or c.high > HU_LIMITS[1])]  # fmt: skip


IMAGE_CHECKS: tuple[Callable[[Examination], list[Finding]], ...] = (check_constant, check_finite, check_hu)


def check_place(found: Examination, label: NDArray[Any]) -> list[Finding]:
    """A truth that does not stand on the image's grid; the distance is that of the farthest corner, in mm."""
    grid, other = found.grid, found.label_grid
    if grid is None or other is None or grid.matches(other, ROUNDING_MM):
        return []
    distance = other.distance_mm(grid)
    data = {"image_shape": list(grid.shape), "label_shape": list(other.shape), "distance_mm": None if np.isinf(distance) else distance}
    mend, why = way_to_mend(grid, other, label, placed=found.placed)
    severity: Severity = "note" if distance <= TOLERANCE_MM else "error"
    words = {COPY_AFFINE: "--fix gives it the image's affine", RESAMPLE: "--fix resamples it onto the image's grid"}.get(
        mend or "", "it cannot be mended"
    )
    return [
        Finding(
            found.case, "geometry", severity, f"the label does not stand on the image's grid: {difference(other, grid)}; {words} ({why})", data, mend
        )
    ]


def check_empty(found: Examination) -> list[Finding]:
    """A truth without any structure; common among single slices, rare among volumes."""
    if found.voxels:
        return []
    flat = found.label_grid is not None and found.label_grid.shape[2] == 1
    return [Finding(found.case, "empty", "note" if flat else "warning", "the label holds no structure at all")]


def check_values(found: Examination, raw: Volume, manifest: Manifest) -> list[Finding]:
    """Values that a mapping turned into background, and label values stored as fractions."""
    mapping = manifest.mapping
    if mapping.rest != "background" or not mapping.values or raw.array.ndim != 3:
        return []
    known = {source for source, _ in mapping.values} | {0}
    others = sorted({round(v) for v in _values(raw.array)} - known)
    return [Finding(found.case, "rest", "note", f"values {others[:10]} became background", {"values": others})] if others else []


def check_sides(found: Examination, label: Volume, image: Volume, labels: LabelSet) -> list[Finding]:
    """Sided structures on the wrong side: of their partner, or of the middle of what the image shows where they have none."""
    if not found.placed or label.grid.shape[2] == 1:
        return []
    sided = [b for b in labels if b.side and found.voxels.get(b.value)]
    if not sided:
        return []
    x = _centroids_x(label, [b.value for b in sided])
    pairs = [(left, right) for left, right in labels.pairs if left in x and right in x]
    wrong = {v: x[left] - x[right] for left, right in pairs if x[left] - x[right] > SIDE_MM for v in (left, right)}
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
    return [Finding(found.case, "side", "warning", f"{', '.join(names[:6])}{' ...' if len(names) > 6 else ''} stand up to {most:.0f} mm on the wrong side; left and "
                    "right may be exchanged, in the labels or in the affine", {"names": names, "mm": most, "of": len(sided)})]  # fmt: skip


def _centroids_x(label: Volume, values: Sequence[int]) -> dict[int, float]:
    """Value -> x of its centroid in RAS+ mm; one pass over the voxels."""
    where = np.nonzero(label.array)
    held = label.array[where]
    row = label.grid.affine[0]
    x = sum(row[axis] * index for axis, index in enumerate(where)) + row[3]
    total, count = np.bincount(held, weights=x), np.bincount(held)
    return {v: float(total[v] / count[v]) for v in values if v < len(count) and count[v]}


def _body_x(image: Volume) -> tuple[float, float]:
    """Middle and width in mm, along x, of the voxels brighter than the mean (of every fourth voxel)."""
    array = image.channels_array[0][::4, ::4, ::4]
    bright = np.argwhere(array > array.mean()) * 4
    if not len(bright):
        return float(image.grid.centre_mm[0]), 0.0
    x = image.grid.to_mm(bright)[:, 0]
    low, high = np.percentile(x, (1, 99))
    return float(low + high) / 2, float(high - low)


# ---- the cohort ----


def compare(examinations: Sequence[Examination]) -> list[Finding]:
    """The findings that only several cases together can tell."""
    return [f for check in COHORT_CHECKS for f in check(examinations)]


def check_dtypes(all_of: Sequence[Examination]) -> list[Finding]:
    """Images of one cohort stored in different data types, often a sign of different scaling."""
    held = Counter(c.dtype for e in all_of for c in e.channels)
    if len(held) < 2:
        return []
    told = ", ".join(f"{n} {dtype}" for dtype, n in held.most_common())
    return [
        Finding(
            "", "dtype", "warning", f"images are stored in different data types ({told}); intensities may not be comparable", {"count": dict(held)}
        )
    ]


def check_ranges(all_of: Sequence[Examination]) -> list[Finding]:
    """Images (not CT) whose brightness differs by more than ``RANGE_RATIO`` within the cohort, and those far beyond the median."""
    findings = []
    for n in range(max((len(e.channels) for e in all_of), default=0)):
        held = {e.case: e.channels[n] for e in all_of if len(e.channels) > n and e.unit != "HU" and e.channels[n].p99 > 0}
        if len(held) < 2:
            continue
        p99 = {case: c.p99 for case, c in held.items()}
        low, high = min(p99.values()), max(p99.values())
        if high <= RANGE_RATIO * low:
            continue
        maxima = [c.high for c in held.values()]
        middle = float(np.median(list(p99.values())))
        far = sorted((case for case, v in p99.items() if not middle / RANGE_RATIO <= v <= middle * RANGE_RATIO), key=lambda case: -p99[case])
        data = {"channel": n, "p99_low": low, "p99_high": high, "max_low": min(maxima), "max_high": max(maxima), "far_from_median": far}
        findings.append(Finding("", "intensity", "warning", f"intensities differ extremely: maxima from {min(maxima):.6g} to {max(maxima):.6g}, 99th percentiles "
                                f"from {low:.4g} to {high:.4g}; {len(far)} cases are {RANGE_RATIO:g} times off the median. A plan normalises each image", data))  # fmt: skip
    return findings


def check_side_pattern(all_of: Sequence[Examination]) -> list[Finding]:
    """Where most cases have left and right exchanged, the names or the reading are at fault rather than single cases."""
    suspect = [e.case for e in all_of if any(f.kind == "side" for f in e.findings)]
    labelled = [e for e in all_of if e.labelled]
    if len(suspect) < 2 or 2 * len(suspect) < len(labelled):
        return []
    return [Finding("", "side", "warning", f"left and right seem exchanged in {len(suspect)} of {len(labelled)} cases: look at the names of the labels first",
                    {"cases": suspect})]  # fmt: skip


def check_duplicates(all_of: Sequence[Examination]) -> list[Finding]:
    """Images with exactly the same voxels; where their patients differ, one patient stands under two ids."""
    groups: dict[str, list[Examination]] = defaultdict(list)
    for e in all_of:
        if e.sha256 and not any(c.low == c.high for c in e.channels):
            groups[e.sha256].append(e)
    findings = []
    for group in groups.values():
        if len(group) < 2:
            continue
        cases, patients = [e.case for e in group], sorted({e.patient for e in group})
        data = {"cases": cases, "patients": patients}
        findings.append(Finding(cases[1], "duplicate", "warning", f"has exactly the voxels of {cases[0]}" + _more(cases[2:]), data))
        if len(patients) > 1:
            findings.append(
                Finding(
                    cases[1], "patient", "warning", f"patients {', '.join(patients[:4])} are one: their images are the same; folds would leak", data
                )
            )
    return findings


def _more(cases: Sequence[str]) -> str:
    return f" (as have {', '.join(cases[:5])})" if cases else ""


def check_patient_ids(all_of: Sequence[Examination]) -> list[Finding]:
    """One DICOM PatientID in cases that the manifest gives to different patients."""
    held: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for e in all_of:
        if e.dicom_patient and e.dicom_patient.strip().lower() not in ("anonymous", "anonymized", "anonymised", "anon", "0", "unknown", "none"):
            held[e.dicom_patient][e.patient].append(e.case)
    return [Finding(next(iter(reversed(list(patients.values()))))[0], "patient", "warning",
                    f"PatientID {dicom} stands in cases of {len(patients)} patients ({', '.join(list(patients)[:4])}): one patient under two ids? "
                    "Say who is who with --patient", {"patient_id": dicom, "patients": {p: list(c) for p, c in patients.items()}})
            for dicom, patients in held.items() if len(patients) > 1]  # fmt: skip


def check_outliers(all_of: Sequence[Examination]) -> list[Finding]:
    """Spacings and extents (mm) far from the cohort's, by a robust z score of their logarithms, axes ordered R, A, S."""
    grids = {e.case: e.grid.reorient("RAS")[0] for e in all_of if e.grid is not None}
    if len(grids) < FEW:
        return []
    findings: list[Finding] = []
    spaced = {e.case for e in all_of if e.spaced}
    for kind, measure, unit in (("spacing", lambda g: g.spacing_mm, "mm"), ("size", lambda g: np.multiply(g.spacing_mm, g.shape), "mm")):
        values = np.log([list(measure(g)) for g in grids.values()])
        middle = np.median(values, axis=0)
        spread = np.maximum(1.4826 * np.median(np.abs(values - middle), axis=0), 0.05)  # a floor of 5 %, so that equal spacings forgive rounding
        z = np.abs(values - middle) / spread
        for case, scores, row in zip(grids, z, np.exp(values), strict=True):
            if scores.max() > OUTLIER_Z and (kind == "size" or case in spaced):
                usual = " x ".join(f"{v:.3g}" for v in np.exp(middle))
                findings.append(Finding(case, kind, "warning", f"{kind} {' x '.join(f'{v:.3g}' for v in row)} {unit}, the cohort's median is {usual}",
                                        {"value": row.tolist(), "median": np.exp(middle).tolist(), "z": float(scores.max())}))  # fmt: skip
    return findings


def check_absent(all_of: Sequence[Examination], labels: LabelSet) -> list[Finding]:
    """Structures that no case has, and those that few have."""
    labelled = [e for e in all_of if e.labelled]
    count = {b.name: sum(b.value in e.voxels for e in labelled) for b in labels}
    never = [name for name, n in count.items() if n == 0]
    if not labelled or not never:
        return []
    return [Finding("", "absent", "warning", f"no case holds {', '.join(never[:8])}{' ...' if len(never) > 8 else ''}", {"names": never})]


COHORT_CHECKS: tuple[Callable[[Sequence[Examination]], list[Finding]], ...] = (
    check_dtypes, check_ranges, check_side_pattern, check_duplicates, check_patient_ids, check_outliers,
)  # fmt: skip
