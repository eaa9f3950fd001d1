"""Reads the files of a training run or an evaluation from its folder, for the report.

Any file may be absent; a damaged file is an error. The module checks no content beyond JSON syntax
and the manifest's format, and knows no page.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.errors import InputError
from ..core.inputs import expecting, read_json_if_any, read_json_lines
from ..core.labels import LabelSet
from ..core.manifest import Manifest
from ..core.progress import Say, unsaid

RUN = "a run or an evaluation"  # as errors call it


@dataclass(frozen=True)
class ReportedRun:
    """The contents of a run's folder; None or empty if a file is absent.

    ``scored`` is "test"; or "validation" if only the validation cases, on which the checkpoint was
    chosen, were scored; or "evaluation" if the folder holds an evaluation alone.
    """

    folder: Path
    plan: dict[str, Any] | None = None
    manifest: Manifest | None = None
    findings: list[dict[str, Any]] | None = None
    logs: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    scores: dict[str, Any] | None = None
    card: dict[str, Any] | None = None
    scored: str = "test"
    damage: tuple[str, ...] = ()  # a sentence about each log that is not complete

    @classmethod
    def load(cls, folder: Path) -> ReportedRun:
        """Read the folder of a run or of an evaluation.

        Raises:
            InputError: the folder does not exist, or a file in it is damaged.
        """
        if not folder.is_dir():
            raise InputError(
                "is not a folder; expected the folder of a run or an evaluation", path=folder
            )
        if (folder / "scores.json").is_file():
            return cls(folder, scores=_object_in(folder / "scores.json"), scored="evaluation")
        manifest = folder / "manifest.jsonl"
        card = _object_in(folder / "card.json")
        damage: list[str] = []
        with expecting(RUN, folder):
            logs = _logs(folder, (card or {}).get("log_lines", {}), damage.append)
        scored = (
            "test"
            if (folder / "test" / "scores.json").is_file()
            or not (folder / "validation" / "scores.json").is_file()
            else "validation"
        )
        return cls(
            folder,
            _object_in(folder / "plan.json"),
            Manifest.load(manifest) if manifest.is_file() else None,
            _listed(read_json_if_any(folder / "findings.json")),
            logs,
            _object_in(folder / scored / "scores.json"),
            card,
            scored,
            tuple(damage),
        )

    @property
    def where(self) -> Path:
        """The folder that holds the scores."""
        return self.folder if self.scored == "evaluation" else self.folder / self.scored

    @property
    def which(self) -> str:
        """The word put before "case" in texts: "test ", "validation ", or "" for an evaluation."""
        return "" if self.scored == "evaluation" else f"{self.scored} "

    @property
    def labels(self) -> LabelSet:
        """The structures: from the scores, else from the plan, else from the manifest."""
        if self.scores and self.scores.get("labels"):
            return LabelSet.from_json(self.scores["labels"])
        if self.plan and self.plan.get("structures"):
            return LabelSet.from_json(self.plan["structures"])
        return self.manifest.labels if self.manifest else LabelSet(())


def _object_in(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None if there is no such file."""
    found = read_json_if_any(path)
    if found is not None and not isinstance(found, dict):
        raise InputError("is not a JSON object", path=path)
    return found


def _logs(folder: Path, expected: dict[str, int], say: Say) -> dict[str, list[dict[str, Any]]]:
    """The lines of every log by the name of its network; ``expected`` are their numbers at the end
    of the training.
    """
    found = {}
    # A plan with views has one folder per view within each fold.
    for path in sorted([*folder.glob("fold_*/log.jsonl"), *folder.glob("fold_*/*/log.jsonl")]):
        name = "_".join(path.parent.relative_to(folder).parts)
        found[name] = read_json_lines(path, unsaid if name in expected else say)
    for name, count in expected.items():
        if (lost := count - len(found.get(name, ()))) > 0:
            say(f"the log of {name}: {lost} of {count} lines are damaged or lost")
    return found


def _listed(findings: Any) -> Any:
    """The list of findings; ``findings.json`` holds it under "findings", next to counts."""
    return findings.get("findings", []) if isinstance(findings, dict) else findings
