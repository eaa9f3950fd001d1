"""Names of label values from a small file: YAML, JSON or CSV, in the shapes that people have.

Read are: a ``LabelSet`` as JSON; ``{"labels": ...}`` (``predictions.json``, the Decathlon's and
nnU-Net's ``dataset.json``); value -> name or name -> value; and a CSV whose first column is the
value and whose second is the name, with or without a head line. It knows no image.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from ...core.errors import InputError, LabelError
from ...core.labels import LabelSet


def read_label_names(path: str | Path) -> LabelSet:
    """The structures that ``path`` names; 0 is background and left out.

    Raises:
        InputError: it cannot be read, or is of none of the shapes above.
        LabelError: a value or a name is given twice, or lies outside 1..65535.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8-sig")
        return (
            _from_csv(text)
            if file.suffix.lower() in (".csv", ".tsv")
            else _from_data(_parsed(file, text))
        )
    except LabelError as error:
        raise LabelError(error.message, path=path) from error
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", path=path) from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise InputError(
            f"does not name label values (value: name, or a table of value and name): {error}",
            path=path,
        ) from error


def _parsed(file: Path, text: str) -> Any:
    if file.suffix.lower() == ".json":
        return json.loads(text)
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"not valid YAML ({error})") from error


def _from_data(data: Any) -> LabelSet:
    if isinstance(data, dict) and isinstance(data.get("labels"), list | dict):
        data = data["labels"]
    if not data:
        raise ValueError("no label in it")
    if isinstance(data, list):
        if all("colour" in entry for entry in data):
            return LabelSet.from_json(data)
        return LabelSet.from_names({int(entry["value"]): entry["name"] for entry in data})
    pairs = [(k, v) if str(k).strip().lstrip("-").isdigit() else (v, k) for k, v in data.items()]
    return _unique([(int(value), str(name)) for value, name in pairs])


def _from_csv(text: str) -> LabelSet:
    rows = [
        row
        for row in csv.reader(
            text.splitlines(), delimiter="\t" if "\t" in text.split("\n")[0] else ","
        )
        if row
    ]
    body = rows if rows[0][0].strip().isdigit() else rows[1:]
    return _unique([(int(row[0]), row[1].strip()) for row in body])


def _unique(pairs: list[tuple[int, str]]) -> LabelSet:
    if not pairs:
        raise ValueError("no label in it")
    values = [v for v, _ in pairs]
    if len(set(values)) < len(values):
        raise LabelError(
            f"label value given twice: {sorted({v for v in values if values.count(v) > 1})}"
        )
    return LabelSet.from_names(dict(pairs))
