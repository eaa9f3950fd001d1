"""Tables of facts about cases: sites, grades, splits and frames."""

from __future__ import annotations

import csv
from pathlib import Path


def rows_of(path: Path) -> list[dict[str, str]]:
    """The rows of a table by heading, headings in small letters, all without spaces at their ends.

    The first line shows whether tabs, semicolons or commas separate the columns. A file that is
    empty has no rows.
    """
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    first = text.partition("\n")[0]
    delimiter = next((d for d in "\t;" if d in first), ",")
    return [
        {str(k).strip().lower(): str(v or "").strip() for k, v in row.items()}
        for row in csv.DictReader(text.splitlines(), delimiter=delimiter)
    ]
