"""Complete the draft of a layout: modality, structures and patients, and the manifest of it all."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ...core.errors import DelineateError, LayoutError, LeakError
from ...core.manifest import Case, Manifest
from ...extend.findings import DiscoveredCohort, Draft, Finding
from ...formats import dicom, files
from .dicom_rules import DicomRules
from .masks import derive, set_stated_names
from .patients import by_pattern
from .structures import StructureSelection, all_ignored, named
from .tree import Tree, patient_from_id, patients_of_channels, patients_of_parts

log = logging.getLogger(__name__)

# Number of cases read for a property that all share; the first one may be unreadable.
FEW = 3


def complete(
    draft: Draft,
    root: Path,
    choice: StructureSelection | None,
    patient: str | None,
    ignore: Sequence[int],
    truth: bool,
    rules: DicomRules,
) -> DiscoveredCohort:
    """Complete a draft (modality, structures, patients) and build the manifest.

    Args:
        draft: the result of a layout or a description.
        root: the cohort's folder.
        choice: the structures that the user selected, if any.
        patient: the user's pattern for patients, if any.
        ignore, truth: see ``discover``.
        rules: for DICOM objects.
    """
    # The first error usually explains why there is no usable case.
    if not draft.cases:
        first = next(
            (f.message for f in draft.findings if f.severity == "error"), "no case was found"
        )
        raise LayoutError(f"no usable case ({draft.layout}): {first}", path=root)
    draft.cases = [*map(rules.of_case if truth else rules.with_images, draft.cases)]
    # If the layout has no modality, it is read from the first DICOM files.
    if not draft.modality and not any(case.modality for case in draft.cases):
        draft.modality = next(
            (fact for case in draft.cases[:FEW] if (fact := _dicom_fact(case, "modality"))), ""
        )
    draft.ignore = all_ignored(draft.ignore, choice, ignore)
    if truth:
        _settle_labels(draft, root, choice)
    cases = _with_patients(draft, patient)
    try:
        manifest = Manifest(
            cases,
            draft.channels,
            draft.labels or named([], {}),
            replace(draft.mapping, ignore=draft.ignore),
            draft.layout,
            os.path.abspath(root),
            draft.modality,
        )
    except LayoutError as error:
        hint = ""
        if isinstance(error, LeakError) and not patient:
            hint = (
                "; if these are different patients, define them with --patient, such as --patient "
                "'(.+)' for one patient per case"
            )
        raise LayoutError(error.message + hint, case=error.case, path=root) from error
    log.debug("layout %s in %s: %d cases", manifest.layout, manifest.root, len(manifest))
    return DiscoveredCohort(manifest, tuple(draft.findings), tuple(draft.settings))


def _settle_labels(draft: Draft, root: Path, choice: StructureSelection | None) -> None:
    """Set the structures: those the user selected, those of the layout, or those derived from the
    values in the files.

    Raises:
        LayoutError: the labels cannot be used unless the user selects some.
    """
    if draft.labels is None and choice is not None and draft.names:
        # The selection may use the names of the layout, so the values need not be read.
        draft.labels = named(sorted(draft.names), draft.names)
    # Reading label files is slow, so it is done only if the structures are needed.
    if draft.labels is None and (choice is None or choice.needs_names()) and not draft.refusal:
        set_stated_names(draft, root)
        derive(draft)
    # A selection also overcomes a refusal, because it states what the values mean.
    if choice is not None:
        draft.labels, draft.mapping = choice.apply(draft.labels or named([], {}), draft.mapping)
    elif draft.refusal:
        raise LayoutError(draft.refusal, path=root)


def _with_patients(draft: Draft, pattern: str | None) -> tuple[Case, ...]:
    """The cases with their patients: from the user's pattern, else from the layout, the DICOM
    PatientID, a common form of id, or the id itself.
    """
    if pattern is not None:
        return by_pattern(draft.cases, pattern)
    rules: Counter[str] = Counter()
    cases: list[Case] = []
    ids = [case.id for case in draft.cases]
    parts, channels = patients_of_parts(ids), patients_of_channels(ids)
    if parts and all(_are_alike(parts[case.id], case.group) for case in draft.cases):
        parts = {}  # an organ or a class that ids repeat is no patient
    for case in draft.cases:
        # The first rule that gives a name wins; the rules used are counted for the finding.
        known = "DICOM PatientID" if draft.layout in ("dicom", "plain-images") else "the layout"
        for rule, name in (
            (known, case.patient),
            ("DICOM PatientID", _dicom_fact(case, "patient_id") if not case.patient else ""),
            ("the form of the case's id", patient_from_id(case.id)),
            ("the first number of the case's id, whose second one counts", parts.get(case.id, "")),
            ("the case's id without its sequence", channels.get(case.id, "")),
            ("the case's id itself", case.id),
        ):
            if name:
                rules[rule] += 1
                cases.append(replace(case, patient=name))
                break
    sources = ", ".join(f"{rule} ({count} cases)" for rule, count in rules.items())
    scans = Counter(case.patient for case in cases)
    several = sum(count > 1 for count in scans.values())
    draft.findings.append(
        Finding(
            "",
            "patient",
            "note",
            f"{len(scans)} patients, {several or 'none'} with several scans, from {sources}",
            {"rules": dict(rules)},
        )
    )
    return tuple(cases)


def _are_alike(one: str, other: str) -> bool:
    """Whether two names differ at most in case and separators."""
    bare = [re.sub(r"[\W_]+", "", name).casefold() for name in (one, other)]
    return bare[0] == bare[1]


def _dicom_fact(case: Case, name: str) -> str:
    """``modality`` or ``patient_id`` of the case's first image if it is DICOM, else ""."""
    image = case.images[0]
    path = Path(image.path)
    try:
        # Only DICOM stores these properties.
        if path.is_file() and files.detect(path) != "DICOM":
            return ""
        if not path.exists() or (path.is_dir() and not Tree().is_dicom(path)):
            return ""
        series = [
            s
            for s in dicom.find_series(path, image.fix_series)
            if not image.series or s.is_chosen_by(image.series)
        ]
    # An unreadable file is reported with its own case and must not stop the others.
    except DelineateError:
        return ""
    return str(getattr(series[0], name)) if series else ""
