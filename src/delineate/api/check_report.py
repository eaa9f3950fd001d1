"""CheckReport: what a check found, for use in Python."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from ..commands import check as command
from ..core.errors import optional_package
from ..extend.findings import SEVERITIES
from .cohort import Cohort

if TYPE_CHECKING:
    import pandas


class CheckReport(command.CheckReport):
    """The result of a check; see ``commands.check.CheckReport`` for its fields.

    >>> from delineate import check
    >>> report = check("cohort", workers=1)
    >>> report
    CheckReport(5 cases, 5 usable; 0 errors, 8 warnings, 3 notes)
    """

    @property
    def cohort(self) -> Cohort:
        """The usable cases.

        >>> from delineate import check
        >>> len(check("cohort", workers=1).cohort)
        5
        """
        return Cohort.of(self.usable)

    def to_frame(self) -> pandas.DataFrame:
        """One row per finding: case, kind, severity and message.

        Raises:
            UsageError: pandas is not installed.

        >>> from delineate import check
        >>> check("cohort", workers=1).to_frame()["severity"].tolist().count("warning")
        8
        """
        columns = ["case", "kind", "severity", "message"]
        rows = [[getattr(finding, name) for name in columns] for finding in self.findings]
        frame = optional_package("pandas", "to_frame").DataFrame(rows, columns=columns)
        return cast("pandas.DataFrame", frame)

    def __repr__(self) -> str:
        counts = ", ".join(
            f"{sum(f.severity == severity for f in self.findings)} {severity}s"
            for severity in SEVERITIES
        )
        return f"CheckReport({len(self.manifest)} cases, {len(self.usable)} usable; {counts})"
