"""Run: a training run for use in Python."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from ..commands.options import ReportOptions
from ..commands.runs import ENDING
from ..core.bundle import Bundle
from ..core.errors import InputError
from ..core.plan import Plan
from ..core.scores import Scores
from ..evaluation.training_verdict import Verdict
from .keywords import ReportKeywords
from .model import Model, load

if TYPE_CHECKING:
    from ..reporting.reported_run import ReportedRun


class Run:
    """A training run: the folder ``MODEL.run`` next to its model.

    Args:
        path: the folder, or the model next to it.
        failures: what went wrong without stopping the training, such as unreadable cases; known
            only to ``delineate.train``.

    Raises:
        InputError: there is no such folder.

    >>> run = Run("liver.model.run")
    >>> run
    Run(liver.model.run, test Dice 0.077 on 1 case)
    >>> run.plan.patch == run.model.plan.patch
    True
    """

    def __init__(self, path: str | Path, failures: tuple[str, ...] = ()):
        folder = Path(path)
        if folder.is_file():
            folder = folder.with_name(folder.name + ENDING)
        if not folder.is_dir() or not folder.name.endswith(ENDING):
            raise InputError("is no run; a run is a folder MODEL.run next to its model", path=path)
        self.folder, self.failures = folder, failures

    @property
    def path(self) -> Path:
        """The model's file.

        >>> Run("liver.model").path.name
        'liver.model'
        """
        return self.folder.with_name(self.folder.name.removesuffix(ENDING))

    @property
    def model(self) -> Model:
        """The model, as ``delineate.load`` opens it.

        Raises:
            InputError: the run has no model yet.

        >>> Run("liver.model.run").model.labels.names
        ['left part', 'right part']
        """
        return load(self.path)

    @property
    def plan(self) -> Plan:
        """All settings of the training.

        Raises:
            InputError: the run has no plan yet.
        """
        return Plan.load(self.folder / "plan.json")

    @property
    def card(self) -> dict[str, Any]:
        """How the model was trained and how well it did, as plain data.

        >>> Run("liver.model.run").card["scores"]["cases"]
        1
        """
        return dict(Bundle.load(self.path).card)

    @property
    def verdict(self) -> str:
        """Whether the model is good, usable with care or not usable, why, and what to do, in one
        sentence; "unknown" for runs of earlier versions.

        >>> Run("liver.model.run").verdict
        'unknown'
        """
        return Verdict.from_json(self.card.get("verdict")).words

    @property
    def log(self) -> list[dict[str, Any]]:
        """One record per epoch and network: the lines of its ``log.jsonl``, with the network's name
        under "network"; for a table ``pandas.DataFrame(run.log)``.

        >>> [record["step"] for record in Run("liver.model.run").log]
        [3, 6, 9, 12]
        """
        logs = self._read().logs.items()
        return [{"network": name, **line} for name, lines in logs for line in lines]

    @property
    def scores(self) -> Scores:
        """The scores of the test cases, or of the validation cases without test cases; no rows
        before they are scored.

        >>> Run("liver.model.run").scores.labels
        ['label 1', 'label 2']
        """
        file = self._read().where / "scores.csv"
        return Scores.from_csv(file) if file.is_file() else Scores(())

    def report(self, out: str | Path | None = None, **keywords: Unpack[ReportKeywords]) -> Path:
        """Write the report, an HTML page; ``out`` is by default ``report.html`` in the folder.

        Args:
            out: the HTML file.
            keywords: the fields of ``ReportOptions``.

        Raises:
            OutputError: the page cannot be written.

        >>> Run("liver.model.run").report("page.html").name
        'page.html'
        """
        from ..commands.report import report

        return report(self.folder, out, ReportOptions(**keywords))

    def __repr__(self) -> str:
        found = self._read()
        scores = self.scores
        cases = len({row.case for row in scores})
        what = f"{found.scored} Dice {scores.mean('dice'):.3f} on {cases} case{'s' * (cases != 1)}"
        return f"Run({self.folder}, {what if cases else 'not scored'})"

    def _read(self) -> ReportedRun:
        from ..reporting.reported_run import ReportedRun

        return ReportedRun.load(self.folder)
