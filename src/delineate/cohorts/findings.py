"""What was noticed about a cohort: one ``Finding`` a fact, and what a layout hands over before it
becomes a manifest.

A finding of severity "error" means the case cannot be used as it stands, "warning" that a person
should look, "note" that something was decided or left out. It opens no file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from ..core.labels import LabelMapping, LabelSet
from ..core.manifest import Case, Manifest

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One fact about a case, or about the cohort where ``case`` is "".

    Args:
        case: id of the case.
        kind: what kind of fact, such as "missing", "geometry", "values", "duplicate".
        severity: "error", "warning" or "note".
        message: one sentence.
        data: the figures behind the sentence, as plain data.
        mend: what ``--fix`` would do, None where only a person can.
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
    """What a layout found; ``layouts.find`` fills in patients and labels and makes the
    ``Manifest``.

    Args:
        layout: its name.
        cases: with patient "" where the layout does not tell it.
        channels: their names.
        labels: the structures; None asks to derive them from the values in the label files.
        mapping: how label files become structures.
        modality: "" where unknown.
        names: value -> name for values that are derived.
        ranges: the structures and grey ranges that the layout's masks may have (CHAOS MR); None for
            every other layout, since grey values alone say nothing of what they mean.
        findings: what was noticed on the way.
        refusal: why the labels cannot be used unless the user chooses some; "" where they can.
    """

    layout: str
    cases: list[Case]
    channels: tuple[str, ...] = ("image",)
    labels: LabelSet | None = None
    mapping: LabelMapping = field(default_factory=LabelMapping)
    modality: str = ""
    names: dict[int, str] = field(default_factory=dict)
    ranges: tuple[LabelSet, LabelMapping] | None = None
    findings: list[Finding] = field(default_factory=list)
    refusal: str = ""

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
    """A manifest and what was noticed while finding it."""

    manifest: Manifest
    findings: tuple[Finding, ...] = ()
