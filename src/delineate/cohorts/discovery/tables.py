"""Tables of facts about cases: sites, grades, splits and frames."""

from __future__ import annotations

import csv
from pathlib import Path

from ...core.errors import InputError
from ...core.inputs import refuse_special


def rows_of(path: Path) -> list[dict[str, str]]:
    """The rows of a table by heading, headings in small letters, all without spaces at their ends.

    The first line shows whether tabs, semicolons or commas separate the columns. A file that is
    empty has no rows.

    Raises:
        InputError: it cannot be read, or is no table.
    """
    refuse_special(path)
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    first = text.partition("\n")[0]
    delimiter = next((d for d in "\t;" if d in first), ",")
    try:
        return [
            {str(k).strip().lower(): str(v or "").strip() for k, v in row.items()}
            for row in csv.DictReader(text.splitlines(), delimiter=delimiter)
        ]
    except csv.Error as error:
        raise InputError(f"is no table ({error})", path=path) from error
