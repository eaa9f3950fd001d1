"""The licence of a data set, and whether a licence restricts what a model may be used for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ..core.errors import InputError
from ..core.inputs import read_json_if_any
from .public.catalogue import DATA_SETS
from .public.download import RECORD

FIELDS = ("licence", "license")  # of a dataset.json
_RESTRICTED = re.compile(
    r"\bNC\b|-NC\b|non-?\s?commercial|research\s+(?:use\s+)?only|only\s+(?:for\s+)?research"
    r"|research use|\bND\b|no derivatives",
    re.IGNORECASE,
)


def licence_of_data(root: str | Path) -> str:
    """The licence of the data set in a folder: that of its ``dataset.json``, or of the catalogue if
    ``download`` made the folder; "" if neither is known.
    """
    folder = Path(root)
    stated = _object(folder / "dataset.json")
    for name in FIELDS:
        if isinstance(stated.get(name), str) and stated[name].strip():
            return " ".join(stated[name].split())
    # A download records its files in its folder, which holds one folder for each.
    known = _object(folder / RECORD)
    known |= {
        file: facts
        for file, facts in _object(folder.parent / RECORD).items()
        if isinstance(facts, dict) and facts.get("unpacked") == folder.name
    }
    for data_set in DATA_SETS.values():
        if any(file.name in known for file in data_set.files):
            return data_set.licence
    return ""


def stated_licences(of_weights: str, of_data: str) -> str:
    """The licences of weights and data in a line; weights inherit that of the data.

    >>> stated_licences("", "CC BY 4.0")
    'of the weights: CC BY 4.0, as of the data; of the data: CC BY 4.0'
    """
    of_weights = of_weights or (f"{of_data}, as of the data" if of_data else "not stated")
    return f"of the weights: {of_weights}; of the data: {of_data or 'see its source'}"


def is_restricted(licence: str) -> bool:
    """Whether a licence excludes a use, such as a commercial one.

    >>> is_restricted("CC BY-NC-SA 4.0"), is_restricted("CC BY-SA 4.0")
    (True, False)
    """
    return _RESTRICTED.search(licence) is not None


def _object(path: Path) -> dict[str, Any]:
    """A JSON file with an object; {} if there is none that can be read."""
    try:
        data = read_json_if_any(path)
    except InputError:
        return {}
    return data if isinstance(data, dict) else {}
