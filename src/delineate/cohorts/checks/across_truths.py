"""Checks of a whole cohort that compare its truths: masks that do not fit their images, masks that
occur twice, structures of a single case, structures in another order, and channels that are
exchanged.

This module opens no file. Everything it needs is in the ``Examination`` of each case.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from ...core.labels import LabelSet
from ...core.manifest import Manifest
from ...extend.findings import Finding
from ...formats.raster import COLOURS
from .alignment import shifted
from .doctor import Examination
from .modalities import exchanged
from .truths import reversed_orders

FEW = 8  # in smaller cohorts a structure of a single case is usual
MOST_NAMED = 12
NAMES = "\0"


def compare_truths(
    all_of: Sequence[Examination], manifest: Manifest, known: Sequence[Finding] = ()
) -> list[Finding]:
    """The findings of this module; ``known`` are those about scans of one person."""
    return [
        *check_absent(all_of, manifest.labels),
        *check_rare(all_of, manifest.labels),
        *check_order(all_of, manifest.labels),
        *check_shifted(all_of),
        *check_same_masks(all_of, known),
        *check_channels(all_of, manifest.channels),
    ]


def check_absent(all_of: Sequence[Examination], labels: LabelSet) -> list[Finding]:
    """Warn about structures that no labelled case contains."""
    labelled = [e for e in all_of if e.labelled]
    count = {b.name: sum(b.value in e.voxels for e in labelled) for b in labels}
    # Only structures that are missing in every case are reported; single absences are normal.
    never = [name for name, n in count.items() if n == 0]
    if not labelled or not never:
        return []
    return [
        Finding(
            "",
            "absent",
            "warning",
            f"no case contains {', '.join(never[:8])}{' ...' if len(never) > 8 else ''}",
            {"names": never},
        )
    ]


def check_rare(all_of: Sequence[Examination], labels: LabelSet) -> list[Finding]:
    """Warn about structures that a single case contains, in a cohort of ``FEW`` or more."""
    labelled = [e for e in all_of if e.labelled and e.voxels]
    if len({e.patient for e in labelled}) < FEW:
        return []
    findings = []
    for label in labels:
        having = [e for e in labelled if label.value in e.voxels]
        if len(having) == 1:
            case, voxels = having[0].case, having[0].voxels[label.value]
            message = (
                f"{label.name} is labelled in 1 of {len(labelled)} cases{NAMES}, {voxels} voxels: "
                "a stray value, or too few cases to learn it from"
            )
            findings.append(_warning("rare", message, [case], names=[label.name], voxels=voxels))
    return findings


def check_order(all_of: Sequence[Examination], labels: LabelSet) -> list[Finding]:
    """Warn about structures whose order, along a line that most cases share, is the opposite in
    some. Left and right are judged by ``check_sides``.
    """
    names = {label.value: label.name for label in labels}
    of_case = {e.case: e.centres for e in all_of if e.labelled}
    found = reversed_orders(of_case, [frozenset(pair) for pair in labels.pairs])
    findings = []
    for (one, other), cases in found.items():
        if one not in names or other not in names:
            continue
        with_both = sum(one in of and other in of for of in of_case.values())
        message = (
            f"{names[one]} and {names[other]} are in the opposite order in {len(cases)} of "
            f"{with_both} cases{NAMES}: their values may be exchanged, or the masks "
            "turned"
        )
        findings.append(_warning("order", message, cases))
    return findings


def check_shifted(all_of: Sequence[Examination]) -> list[Finding]:
    """Warn about masks that do not follow the edges of their images, where the others do."""
    fits = {e.case: e.fit for e in all_of if e.fit is not None}
    cases = shifted(fits)
    if not cases:
        return []
    message = (
        f"the masks of {len(cases)} of {len(fits)} cases{NAMES} do not follow the edges of their "
        "images, as the other masks do: they may be shifted or turned, or belong to other images"
    )
    shifts = {case: list(fits[case].shift) for case in cases}
    return [_warning("shifted", message, cases, voxels=shifts)]


def check_same_masks(all_of: Sequence[Examination], known: Sequence[Finding] = ()) -> list[Finding]:
    """Warn about equal masks of different patients whose images differ; patients that are one by
    the findings ``known`` may share a mask.
    """
    persons = _persons(known)
    groups: dict[str, list[Examination]] = defaultdict(list)
    for e in all_of:
        if e.mask:
            groups[e.mask].append(e)
    labelled = sum(e.labelled for e in all_of)
    findings = []
    for group in groups.values():
        # Equal images are reported as such, and scans of one patient may share a mask.
        if (
            len({e.sha256 for e in group}) < 2
            or len({persons.get(e.patient, e.patient) for e in group}) < 2
        ):
            continue
        # Two slices may be one slice with other intensities, as augmentation makes them.
        if len(group) == 2 and all(e.fit is not None and e.fit.flat for e in group):
            continue
        cases = [e.case for e in group]
        message = (
            f"{len(cases)} of {labelled} cases{NAMES} have the same mask, voxel by voxel, and "
            "different images: a mask was copied or assigned to the wrong scan"
        )
        findings.append(_warning("same mask", message, cases, of=labelled))
    return findings


def _persons(known: Sequence[Finding]) -> dict[str, str]:
    """Patient -> the first of the patients that are probably the same person."""
    one: dict[str, str] = {}
    for finding in known:
        patients = list(finding.data.get("patients", ())) if finding.kind == "patient" else []
        if len(patients) > 1:
            first = one.get(patients[0], patients[0])
            merged = {first, *patients, *(one.get(p, p) for p in patients)}
            members = merged | {p for p, other in one.items() if other in merged}
            one.update(dict.fromkeys(members, first))
    return one


def check_channels(all_of: Sequence[Examination], names: Sequence[str]) -> list[Finding]:
    """Warn about cases in which two channels are exchanged."""
    if tuple(names) == COLOURS:  # channels of one picture, which no one exchanges
        return []
    profiles = {e.case: e.profiles for e in all_of if e.profiles is not None}
    findings = []
    for pair, cases in exchanged(profiles).items():
        if max(pair) >= len(names):
            continue
        both = [names[n] for n in pair]
        message = (
            f"the channels {both[0]} and {both[1]} look exchanged in {len(cases)} of "
            f"{len(profiles)} cases{NAMES}: their intensities are as those of the other channel in "
            "the other cases"
        )
        findings.append(_warning("channels", message, cases, channels=both))
    return findings


def _warning(kind: str, message: str, cases: Sequence[str], **data: Any) -> Finding:
    """A finding about several cases, whose ids replace ``NAMES``; ``unnamed`` is the
    sentence without them.
    """
    named = ", ".join(cases[:MOST_NAMED]) + (" ..." if len(cases) > MOST_NAMED else "")
    facts = {"cases": list(cases), "unnamed": message.replace(NAMES, ""), **data}
    return Finding("", kind, "warning", message.replace(NAMES, f" ({named})"), facts)
