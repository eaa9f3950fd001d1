"""Findings about a cohort, and the draft that a layout returns before it becomes a manifest.

Each ``Finding`` reports one fact. Severity "error" means that the case cannot be used as it is,
"warning" that a person should look at it, and "note" that the program made a decision or left
something out. This module opens no file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..core.labels import LabelMapping, LabelSet
from ..core.manifest import Case, Manifest

Severity = Literal["error", "warning", "note"]
# In the order in which a report lists them.
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One fact about a case, or about the whole cohort if ``case`` is "".

    Args:
        case: id of the case.
        kind: kind of fact, such as "missing", "geometry", "values" or "duplicate".
        severity: "error", "warning" or "note".
        message: one sentence.
        data: the numbers behind the sentence, as plain data.
        mend: the repair that ``--fix`` would apply; None if only a person can repair the case.
    """

    case: str
    kind: str
    severity: Severity
    message: str
    data: dict[str, Any] = field(default_factory=dict)
    mend: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "case": self.case,
            "kind": self.kind,
            "severity": self.severity,
            "message": self.message,
            "data": self.data,
            "mend": self.mend,
        }


@dataclass
class Draft:
    """The cases that a layout found; ``layouts.find`` adds patients and labels and builds the
    ``Manifest``.

    Args:
        layout: name of the layout.
        cases: the cases; ``patient`` is "" if the layout does not define it.
        channels: names of the channels.
        labels: the structures; None means that they are derived from the values in the label files.
        mapping: how values in label files become structures.
        modality: "" if unknown.
        names: value -> name, for derived values.
        usual: ``names`` are those of the published data set, and no file states them: a value that
            most masks have is a structure even without a name.
        editions: tables value -> name of published data sets that the names of the files fit; the
            one that has all values of the masks counts, if ``names`` is empty.
        only: the name of the structure if the masks have only one; "" if nothing states it.
        colours: colour code 0xRRGGBB -> name, for masks in colours.
        ranges: the structures and value ranges that the masks of this layout may use (CHAOS MR);
            None for every other layout, because mask values alone do not identify an organ.
        findings: the findings so far.
        ignore: values (of colours, codes 0xRRGGBB) whose voxels are ignored.
        refusal: why the labels cannot be used unless the user selects some; "" if they can be used.
        settings: files with facts about the cases that were read, such as a table of sites.
        called: name in the files -> name of the structure, where files name one structure
            differently.
        counted: ids and patients are numbers that only this folder gives, so equal ones in two
            folders are different cases.
    """

    layout: str
    cases: list[Case]
    channels: tuple[str, ...] = ("image",)
    labels: LabelSet | None = None
    mapping: LabelMapping = field(default_factory=LabelMapping)
    modality: str = ""
    names: dict[int, str] = field(default_factory=dict)
    usual: bool = False
    editions: tuple[Mapping[int, str], ...] = ()
    only: str = ""
    colours: dict[int, str] = field(default_factory=dict)
    ranges: tuple[LabelSet, LabelMapping] | None = None
    findings: list[Finding] = field(default_factory=list)
    ignore: tuple[int, ...] = ()
    refusal: str = ""
    settings: list[Path] = field(default_factory=list)
    called: dict[str, str] = field(default_factory=dict)
    counted: bool = False

    def note(self, kind: str, message: str, **data: Any) -> None:
        """Add a note about the whole cohort."""
        self.findings.append(Finding("", kind, "note", message, data))

    def problem(
        self, case: str, kind: str, message: str, severity: Severity = "error", **data: Any
    ) -> None:
        """Add an error or a warning about one case."""
        self.findings.append(Finding(case, kind, severity, message, data))


@dataclass(frozen=True)
class DiscoveredCohort:
    """A manifest, the findings made while the cohort was searched, and the files with facts about
    the cases that were read for it.
    """

    manifest: Manifest
    findings: tuple[Finding, ...] = ()
    settings: tuple[Path, ...] = ()
