"""Checks of a whole cohort: each function compares the examinations of all cases.

This module opens no file. Everything it needs is in the ``Examination`` that ``doctor.examine``
made of each case.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ...extend.findings import Finding
from .copies import ScanCopy, find_copies
from .doctor import Examination
from .repair import ONE_PATIENT

RANGE_RATIO = 20.0  # largest plausible ratio between the intensities of two cases
OUTLIER_Z = 6.0  # robust z score beyond which a spacing or size is an outlier
SMALLEST_MM, LARGEST_MM = 15.0, 2500.0  # longest axis of a scan of a body or a part of it
TURNED_DEG = 1.0  # smaller angles between copies are errors of the estimate
# Spacings of one group are within GROUP_RANGE, the next group is GROUPS_APART times as coarse.
GROUPS_APART, GROUP_RANGE, MOST_GROUPS = 1.5, 1.3, 3
AXES = ("the left-right axis", "the front-back axis", "the head-feet axis")
FEW = 8  # outliers are not searched in cohorts with fewer cases
# DICOM PatientID values that anonymisation leaves behind; they do not identify a patient.
_ANONYMOUS_IDS = ("anonymous", "anonymized", "anonymised", "anon", "0", "unknown", "none")


def compare(examinations: Sequence[Examination]) -> list[Finding]:
    """The findings that need several cases, from all ``COHORT_CHECKS``."""
    return [f for check in COHORT_CHECKS for f in check(examinations)]


def check_dtypes(all_of: Sequence[Examination]) -> list[Finding]:
    """Warn if images are stored in different data types, often a sign of different scaling.

    CT in HU is comparable whatever its data type, so it is left out.
    """
    held = Counter(c.dtype for e in all_of if e.unit != "HU" for c in e.channels)
    if len(held) < 2:
        return []
    listed = ", ".join(f"{n} {dtype}" for dtype, n in held.most_common())
    return [
        Finding(
            "",
            "dtype",
            "warning",
            f"images are stored in different data types ({listed}); intensities may not be "
            "comparable",
            {"count": dict(held)},
        )
    ]


def check_pet_units(all_of: Sequence[Examination]) -> list[Finding]:
    """Warn if some PET scans are in Bq/ml and others in SUV."""
    held = Counter(e.unit for e in all_of if e.unit in ("Bq/ml", "SUV"))
    if len(held) < 2:
        return []
    listed = ", ".join(f"{n} in {unit}" for unit, n in held.most_common())
    message = f"PET scans have different units ({listed}); --unit suv reads all of them as SUV"
    return [Finding("", "intensity", "warning", message, {"count": dict(held)})]


def check_ranges(all_of: Sequence[Examination]) -> list[Finding]:
    """Warn if the intensities of a channel (not CT) differ by more than ``RANGE_RATIO`` within the
    cohort, and name the cases far from the median.

    The 99th percentile represents the intensity of a case.
    """
    findings = []
    for n in range(max((len(e.channels) for e in all_of), default=0)):
        # Compare the same channel of all cases. Channels without positive values are left out.
        held = {
            e.case: e.channels[n]
            for e in all_of
            if len(e.channels) > n and e.unit != "HU" and e.channels[n].p99 > 0
        }
        if len(held) < 2:
            continue
        p99 = {case: c.p99 for case, c in held.items()}
        low, high = min(p99.values()), max(p99.values())
        if high <= RANGE_RATIO * low:
            continue
        # Cases far from the median are named, the most intense first.
        maxima = [c.high for c in held.values()]
        middle = float(np.median(list(p99.values())))
        far = sorted(
            (
                case
                for case, v in p99.items()
                if not middle / RANGE_RATIO <= v <= middle * RANGE_RATIO
            ),
            key=lambda case: -p99[case],
        )
        data = {
            "channel": n,
            "p99_low": low,
            "p99_high": high,
            "max_low": min(maxima),
            "max_high": max(maxima),
            "far_from_median": far,
        }
        message = (
            f"intensities differ strongly: maxima from {min(maxima):.6g} to {max(maxima):.6g}, "
            f"99th percentiles from {low:.4g} to {high:.4g}; {len(far)} cases differ from the "
            f"median by more than a factor of {RANGE_RATIO:g}. A plan normalises each image"
        )
        findings.append(Finding("", "intensity", "warning", message, data))
    return findings


def check_side_pattern(all_of: Sequence[Examination]) -> list[Finding]:
    """Warn if left and right seem exchanged in at least half of the labelled cases.

    The cause is then the label names or the geometry of all files, not a single case.
    """
    # The single cases were checked before; here they are only counted.
    suspect = [e.case for e in all_of if any(f.kind == "side" for f in e.findings)]
    labelled = [e for e in all_of if e.labelled]
    if len(suspect) < 2 or 2 * len(suspect) < len(labelled):
        return []
    message = (
        f"left and right seem exchanged in {len(suspect)} of {len(labelled)} cases; check the "
        "label names first"
    )
    return [Finding("", "side", "warning", message, {"cases": suspect})]


def check_drawn_pattern(all_of: Sequence[Examination]) -> list[Finding]:
    """Warn if at least half of the labelled images repeat their masks."""
    drawn = [e.case for e in all_of if any(f.kind == "drawn" for f in e.findings)]
    labelled = sum(e.labelled for e in all_of)
    if len(drawn) < 2 or 2 * len(drawn) < labelled:
        return []
    message = (
        f"the images show their own masks in {len(drawn)} of {labelled} cases: a model would learn "
        "to read the masks, and find nothing in other scans"
    )
    return [Finding("", "drawn", "warning", message, {"cases": drawn})]


def check_duplicates(all_of: Sequence[Examination]) -> list[Finding]:
    """Warn about images with identical voxels.

    If the cases belong to different patients, one patient probably has two ids: a second warning
    says so, because folds grouped by patient would then leak.
    """
    groups: dict[str, list[Examination]] = defaultdict(list)
    # Constant images are equal by definition and are reported by their own check.
    for e in all_of:
        if e.sha256 and not any(c.low == c.high for c in e.channels):
            groups[e.sha256].append(e)
    findings = []
    for group in groups.values():
        if len(group) < 2:
            continue
        cases, patients = [e.case for e in group], sorted({e.patient for e in group})
        data = {"cases": cases, "patients": patients}
        findings.append(
            Finding(
                cases[1],
                "duplicate",
                "warning",
                f"has the same voxels as {cases[0]}" + _more(cases[2:]),
                data,
            )
        )
        if len(patients) > 1:
            findings.append(
                Finding(
                    cases[1],
                    "patient",
                    "warning",
                    f"patients {', '.join(patients[:4])} have identical images and are probably "
                    f"the same person; folds would leak; {_advice(group[0], group[1])[0]}",
                    data,
                    _advice(group[0], group[1])[1],
                )
            )
    return findings


def check_copies(all_of: Sequence[Examination]) -> list[Finding]:
    """Warn about scans of different patients that show the same by content: with other intensities,
    cropped, resampled, slightly rotated or mirrored. Equal voxels are left to
    ``check_duplicates``.
    """
    # Patients with equal images are one already.
    one_of = {e.sha256: e.patient for e in reversed(all_of) if e.sha256}
    same = {e.patient: one_of.get(e.sha256, e.patient) for e in reversed(all_of)}
    found = find_copies([e.details for e in all_of], [same[e.patient] for e in all_of])
    findings = []
    for copy in found:
        first, second = all_of[copy.first], all_of[copy.second]
        message = (
            f"shows the same as {first.case} ({_relation(copy, first, second)}; {copy.agreeing} of "
            f"{copy.of} details agree): patients {first.patient} and {second.patient} are probably "
            f"one person, and folds would leak; {_advice(first, second)[0]}"
        )
        data = {
            "cases": [first.case, second.case],
            "patients": [first.patient, second.patient],
            "agreeing": copy.agreeing,
            "of": copy.of,
            "degrees": round(copy.degrees, 1),
            "mirrored": copy.mirrored is not None,
        }
        mend = _advice(first, second)[1]
        findings.append(Finding(second.case, "patient", "warning", message, data, mend))
    return findings


def _advice(first: Examination, second: Examination) -> tuple[str, str | None]:
    """What to do about two scans of one person under two ids, and the repair of ``--fix``."""
    if first.split and second.split and first.split != second.split:
        return f"one is in {first.split}, the other in {second.split}: remove one", None
    return "state one patient in a description or remove one; --fix makes them one", ONE_PATIENT


def _relation(copy: ScanCopy, first: Examination, second: Examination) -> str:
    """How the second scan differs from the first, as far as their grids and details tell."""
    words = []
    if copy.mirrored is not None:
        words.append("mirrored")
    if copy.degrees > TURNED_DEG:
        words.append(f"turned by {copy.degrees:.0f} degrees")
    a, b = (None if e.grid is None else e.grid.reorient("RAS")[0] for e in (first, second))
    if a is not None and b is not None:
        spacings = np.array(a.spacing_mm), np.array(b.spacing_mm)
        if first.spaced and second.spaced and not np.allclose(*spacings, rtol=0.01):
            words.append("resampled")
        sizes = (spacings[0] * a.shape, spacings[1] * b.shape)
        if not np.allclose(*sizes, rtol=0.05):
            words.append("cropped")
    return ", ".join(words) or "other intensities"


def _more(cases: Sequence[str]) -> str:
    return f" (also {', '.join(cases[:5])})" if cases else ""


def check_patient_ids(all_of: Sequence[Examination]) -> list[Finding]:
    """Warn if one DICOM PatientID occurs in cases that the manifest gives to different patients."""
    # PatientID -> patient in the manifest -> cases.
    held: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for e in all_of:
        if e.dicom_patient and e.dicom_patient.strip().lower() not in _ANONYMOUS_IDS:
            held[e.dicom_patient][e.patient].append(e.case)
    findings = []
    for dicom, patients in held.items():
        if len(patients) > 1:
            names = ", ".join(list(patients)[:4])
            message = (
                f"PatientID {dicom} occurs in cases of {len(patients)} patients ({names}), which "
                "may be the same person; define the patients with --patient"
            )
            data = {"patient_id": dicom, "patients": {p: list(c) for p, c in patients.items()}}
            findings.append(
                Finding(list(patients.values())[-1][0], "patient", "warning", message, data)
            )
    return findings


def check_outliers(all_of: Sequence[Examination]) -> list[Finding]:
    """Warn about spacings and extents (mm, axes in the order R, A, S) far from the cohort's median.

    The criterion is a robust z score of the logarithms. Spacings that the file does not store are
    left out.
    """
    # Axes in one order, so that coronal and axial scans can be compared.
    grids = {e.case: e.grid.reorient("RAS")[0] for e in all_of if e.grid is not None}
    spacings = {case: np.array(grid.spacing_mm) for case, grid in grids.items()}
    sizes = {case: spacings[case] * grid.shape for case, grid in grids.items()}
    unknown = {e.case for e in all_of if not e.spaced}
    known = {c: v for c, v in spacings.items() if c not in unknown}
    by_spacing = _outliers("spacing", known) or _groups(known)
    return by_spacing + _outliers("size", sizes)


def _groups(spacings: Mapping[str, NDArray[np.float64]]) -> list[Finding]:
    """A finding for each axis along which the spacings (3,) in mm form few groups far apart, with
    the cases outside the largest one.
    """
    if len(spacings) < FEW:
        return []
    cases, findings = list(spacings), []
    named: set[tuple[str, ...]] = set()
    for axis in range(3):
        along = np.array([spacings[case][axis] for case in cases])
        order = np.argsort(along, kind="stable")
        jumps = np.flatnonzero(along[order][1:] >= GROUPS_APART * along[order][:-1]) + 1
        groups = [along[part] for part in np.split(order, jumps)]
        tight = all(group.max() <= GROUP_RANGE * group.min() for group in groups)
        if not 2 <= len(groups) <= MOST_GROUPS or not tight:
            continue
        largest = max(groups, key=len)
        odd = tuple(case for case, value in zip(cases, along, strict=True) if value not in largest)
        # One resolution in two axes is one finding.
        if odd in named:
            continue
        named.add(odd)
        each = ", ".join(f"{np.median(g):.3g} mm in {len(g)}" for g in groups)
        shown = ", ".join(odd[:12]) + (" ..." if len(odd) > 12 else "")
        message = (
            f"the cases have {len(groups)} resolutions along {AXES[axis]}: {each} cases ({shown}); "
            "all are resampled to one"
        )
        findings.append(Finding("", "spacing", "warning", message, {"cases": list(odd)}))
    return findings


def check_extent(all_of: Sequence[Examination]) -> list[Finding]:
    """Warn if all scans are far smaller or larger than a part of a body, which is a sign of a
    header in centimetres or metres.
    """
    extents = [
        max(s * n for s, n in zip(e.grid.spacing_mm, e.grid.shape, strict=True))
        for e in all_of
        if e.grid is not None and e.spaced and min(e.grid.shape) > 1
    ]
    if not extents or any(SMALLEST_MM <= extent <= LARGEST_MM for extent in extents):
        return []
    message = (
        f"the longest axis of the scans measures {min(extents):.3g} to {max(extents):.3g} mm; are "
        "the voxel sizes in the headers in millimetres?"
    )
    return [Finding("", "size", "warning", message, {"extents_mm": [min(extents), max(extents)]})]


def _outliers(kind: str, values: Mapping[str, NDArray[np.float64]]) -> list[Finding]:
    """Findings for the cases whose ``values`` (3,) in mm are far from the median of all cases."""
    if len(values) < FEW:
        return []
    # Logarithms make half and double the spacing equally far from the median.
    logs = np.log(list(values.values()))
    middle = np.median(logs, axis=0)
    # Robust standard deviation (1.4826 MAD) of each axis. The floor of 5 % avoids outliers caused
    # by rounding if almost all spacings are equal.
    spread = np.maximum(1.4826 * np.median(np.abs(logs - middle), axis=0), 0.05)
    usual = np.exp(middle)
    findings = []
    # The axis with the largest deviation decides.
    for (case, value), z in zip(
        values.items(), (np.abs(logs - middle) / spread).max(axis=1), strict=True
    ):
        if z > OUTLIER_Z:
            message = f"{kind} {_by(value)} mm, the cohort's median is {_by(usual)}"
            findings.append(
                Finding(
                    case,
                    kind,
                    "warning",
                    message,
                    {"value": value.tolist(), "median": usual.tolist(), "z": float(z)},
                )
            )
    return findings


def _by(values: NDArray[np.float64]) -> str:
    return " x ".join(f"{v:.3g}" for v in values)


def check_ignored(all_of: Sequence[Examination]) -> list[Finding]:
    """Note how much of the ground truth is ignored."""
    share = {
        e.case: e.ignored / float(np.prod(e.label_grid.shape))
        for e in all_of
        if e.ignored and e.label_grid is not None
    }
    if not share:
        return []
    words = (
        f"{len(share)} cases have ignored voxels, at most {100 * max(share.values()):.2g} % of a "
        "case: they are neither learnt from nor scored"
    )
    return [Finding("", "ignored", "note", words, {"share": share})]


def looks_like_ct(all_of: Sequence[Examination]) -> bool:
    """Whether every image has the range of CT in HU: air or padding near -1000, no value below
    -3100, and the 99th percentile below 3100.

    This is used for files without a modality (NIfTI). No MR image or photograph has such negative
    values in every image.
    """
    channels = [c for e in all_of for c in e.channels]
    return bool(channels) and all(
        -3100 <= c.low <= -900 and c.high > 100 and c.p99 < 3100 for c in channels
    )


COHORT_CHECKS: tuple[Callable[[Sequence[Examination]], list[Finding]], ...] = (
    check_dtypes,
    check_pet_units,
    check_ranges,
    check_side_pattern,
    check_drawn_pattern,
    check_duplicates,
    check_copies,
    check_patient_ids,
    check_outliers,
    check_ignored,
    check_extent,
)
