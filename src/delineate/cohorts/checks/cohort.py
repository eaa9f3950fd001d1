"""What is wrong with a cohort: checks that look across the examinations of all its cases, one small
function each.

It opens no file: everything it needs is in the ``Examination`` that ``doctor.examine`` made of each
case.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ...core.labels import LabelSet
from ..findings import Finding
from .doctor import Examination

RANGE_RATIO = 20.0  # intensities of one cohort differ by at most this factor, or are called extreme
OUTLIER_Z = 6.0  # robust z score beyond which a spacing or size is an outlier
FEW = 8  # fewer cases than this have no outliers


def compare(examinations: Sequence[Examination]) -> list[Finding]:
    """The findings that only several cases together can tell."""
    return [f for check in COHORT_CHECKS for f in check(examinations)]


def check_dtypes(all_of: Sequence[Examination]) -> list[Finding]:
    """Images of one cohort stored in different data types, often a sign of different scaling; CT in
    HU is comparable whatever its type.
    """
    held = Counter(c.dtype for e in all_of if e.unit != "HU" for c in e.channels)
    if len(held) < 2:
        return []
    told = ", ".join(f"{n} {dtype}" for dtype, n in held.most_common())
    return [
        Finding(
            "",
            "dtype",
            "warning",
            f"images are stored in different data types ({told}); intensities may not be "
            "comparable",
            {"count": dict(held)},
        )
    ]


def check_ranges(all_of: Sequence[Examination]) -> list[Finding]:
    """Images (not CT) whose brightness differs by more than ``RANGE_RATIO`` within the cohort, and
    those far beyond the median.
    """
    findings = []
    for n in range(max((len(e.channels) for e in all_of), default=0)):
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
            f"intensities differ extremely: maxima from {min(maxima):.6g} to {max(maxima):.6g}, "
            f"99th percentiles from {low:.4g} to {high:.4g}; "
            f"{len(far)} cases are {RANGE_RATIO:g} times off the median. A plan normalises each "
            "image"
        )
        findings.append(Finding("", "intensity", "warning", message, data))
    return findings


def check_side_pattern(all_of: Sequence[Examination]) -> list[Finding]:
    """Where most cases have left and right exchanged, the names or the reading are at fault rather
    than single cases.
    """
    suspect = [e.case for e in all_of if any(f.kind == "side" for f in e.findings)]
    labelled = [e for e in all_of if e.labelled]
    if len(suspect) < 2 or 2 * len(suspect) < len(labelled):
        return []
    message = (
        f"left and right seem exchanged in {len(suspect)} of {len(labelled)} cases: look "
        "at the names of the labels first"
    )
    return [Finding("", "side", "warning", message, {"cases": suspect})]


def check_duplicates(all_of: Sequence[Examination]) -> list[Finding]:
    """Images with exactly the same voxels; where their patients differ, one patient stands under
    two ids.
    """
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
        findings.append(
            Finding(
                cases[1],
                "duplicate",
                "warning",
                f"has exactly the voxels of {cases[0]}" + _more(cases[2:]),
                data,
            )
        )
        if len(patients) > 1:
            findings.append(
                Finding(
                    cases[1],
                    "patient",
                    "warning",
                    f"patients {', '.join(patients[:4])} are one: their images are the same; "
                    "folds would leak",
                    data,
                )
            )
    return findings


def _more(cases: Sequence[str]) -> str:
    return f" (as have {', '.join(cases[:5])})" if cases else ""


def check_patient_ids(all_of: Sequence[Examination]) -> list[Finding]:
    """One DICOM PatientID in cases that the manifest gives to different patients."""
    held: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for e in all_of:
        if e.dicom_patient and e.dicom_patient.strip().lower() not in (
            "anonymous",
            "anonymized",
            "anonymised",
            "anon",
            "0",
            "unknown",
            "none",
        ):
            held[e.dicom_patient][e.patient].append(e.case)
    findings = []
    for dicom, patients in held.items():
        if len(patients) > 1:
            names = ", ".join(list(patients)[:4])
            message = (
                f"PatientID {dicom} stands in cases of {len(patients)} patients ({names}): "
                "one under two ids? Say who is who with --patient"
            )
            data = {"patient_id": dicom, "patients": {p: list(c) for p, c in patients.items()}}
            findings.append(
                Finding(list(patients.values())[-1][0], "patient", "warning", message, data)
            )
    return findings


def check_outliers(all_of: Sequence[Examination]) -> list[Finding]:
    """Spacings and extents (mm) far from the cohort's, by a robust z score of their logarithms,
    axes ordered R, A, S.
    """
    grids = {e.case: e.grid.reorient("RAS")[0] for e in all_of if e.grid is not None}
    spacings = {case: np.array(grid.spacing_mm) for case, grid in grids.items()}
    sizes = {case: spacings[case] * grid.shape for case, grid in grids.items()}
    unknown = {e.case for e in all_of if not e.spaced}
    return _outliers(
        "spacing", {c: v for c, v in spacings.items() if c not in unknown}
    ) + _outliers("size", sizes)


def _outliers(kind: str, values: Mapping[str, NDArray[np.float64]]) -> list[Finding]:
    """``values`` (3,) in mm by case, each judged against the median of all."""
    if len(values) < FEW:
        return []
    logs = np.log(list(values.values()))
    middle = np.median(logs, axis=0)
    # A floor of 5 %, so that equal spacings forgive rounding.
    spread = np.maximum(1.4826 * np.median(np.abs(logs - middle), axis=0), 0.05)
    usual = np.exp(middle)
    findings = []
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


def check_absent(all_of: Sequence[Examination], labels: LabelSet) -> list[Finding]:
    """Structures that no case has, and those that few have."""
    labelled = [e for e in all_of if e.labelled]
    count = {b.name: sum(b.value in e.voxels for e in labelled) for b in labels}
    never = [name for name, n in count.items() if n == 0]
    if not labelled or not never:
        return []
    return [
        Finding(
            "",
            "absent",
            "warning",
            f"no case holds {', '.join(never[:8])}{' ...' if len(never) > 8 else ''}",
            {"names": never},
        )
    ]


def looks_like_ct(all_of: Sequence[Examination]) -> bool:
    """Whether every image has the range of CT in HU: air or padding near -1000, nothing below
    -3100, 99 % below 3100.

    For files without a modality (NIfTI); no MR or photograph has such negative values in every
    image.
    """
    channels = [c for e in all_of for c in e.channels]
    return bool(channels) and all(
        -3100 <= c.low <= -900 and c.high > 100 and c.p99 < 3100 for c in channels
    )


COHORT_CHECKS: tuple[Callable[[Sequence[Examination]], list[Finding]], ...] = (
    check_dtypes,
    check_ranges,
    check_side_pattern,
    check_duplicates,
    check_patient_ids,
    check_outliers,
)
