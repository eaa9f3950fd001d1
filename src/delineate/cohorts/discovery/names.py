"""Read the names of label values from a small YAML, JSON or CSV file.

Accepted forms: a ``LabelSet`` as JSON; ``{"labels": ...}`` (``predictions.json``, and
``dataset.json`` of the Decathlon and of nnU-Net); value -> name or name -> value; and a CSV with
the value in the first column and the name in the second, with or without a header line; the label
descriptions of ITK-SNAP and the colour tables of FreeSurfer and 3D Slicer (.txt, .label, .ctbl). A
CSV may also name colours. This module reads no image.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...core.errors import InputError, LabelError
from ...core.inputs import parse_json, parse_yaml, read_json, read_text
from ...core.labels import LabelSet

# Headings of columns, the surest first.
VALUE_COLUMNS = ("value", "label", "index", "number", "id")
NAME_COLUMNS = ("name", "structure", "organ", "label", "class")
DATASET_JSON = "dataset.json"
# A line of ITK-SNAP (value, red, green, blue, opacity, two switches, "name"), and of a colour table
# (value, name, red, green, blue, opacity).
_DESCRIBED = re.compile(
    r'^\s*(?P<value>\d+)\s+(?:\d+\s+){3}[\d.]+\s+[01]\s+[01]\s+"(?P<name>[^"]*)"\s*$'
    r"|^\s*(?P<number>\d+)\s+(?P<word>\S+)\s+(?:\d+\s+){3}\d+\s*$",
    re.MULTILINE,
)
DESCRIPTIONS = (".txt", ".label", ".ctbl")
NNUNET_IGNORE = "ignore"  # nnU-Net's reserved name of a label


def read_label_names(path: str | Path) -> LabelSet:
    """The structures named in ``path``; 0 is background and is left out.

    Raises:
        InputError: the file cannot be read, or has none of the forms above.
        LabelError: a value or a name is given twice, or a value is outside 1..65535.
    """
    file = Path(path)
    # The extension decides between a table and structured data.
    try:
        text = read_text(file)
        if file.suffix.lower() in DESCRIPTIONS and (described := _described(text)):
            return _unique(described)
        return (
            _from_csv(text)
            if file.suffix.lower() in (".csv", ".tsv")
            else _from_data(_parsed(file, text), file.name == DATASET_JSON)
        )
    except LabelError as error:
        raise LabelError(error.message, path=path) from error
    # Any other shape of data ends in one of these errors.
    except (
        csv.Error,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        ArithmeticError,
    ) as error:
        raise InputError(
            "does not name label values; expected lines 'value: name' or a table of value and "
            f"name: {error}",
            path=path,
        ) from error


def is_label_description(path: Path) -> bool:
    """Whether a text file is a label description of ITK-SNAP or a colour table."""
    if path.suffix.lower() not in DESCRIPTIONS:
        return False
    try:
        return bool(_described(read_text(path)))
    except InputError:
        return False


def _described(text: str) -> list[tuple[int, str]]:
    """The values above 0 and their names; [] for any other text."""
    pairs = [
        (int(one["value"] or one["number"]), one["name"] or one["word"] or "")
        for one in _DESCRIBED.finditer(text)
    ]
    return [(value, name) for value, name in pairs if value and name]


def regions_of(labels: dict[str, Any], order: Any = None) -> LabelSet:
    """The structures of nnU-Net's regions: name -> value or values of a label map.

    They overlap if a value belongs to several. With ``order`` (``regions_class_order``) the value
    of each is the one that is written into a label map, in which later regions overwrite earlier
    ones.

    Raises:
        LabelError: ``order`` has another number of values, or repeats one.
    """
    parts = {
        str(name): tuple(map(_whole, value if isinstance(value, list) else [value]))
        for name, value in labels.items()
        if value not in (0, [0])
    }
    used = [v for values in parts.values() for v in values]
    # Values of their own where no order is given, so that no value of a label map is meant.
    values = list(order) if order else list(range(max(used) + 1, max(used) + 1 + len(parts)))
    if len(values) != len(parts) or len(set(values)) < len(values):
        raise LabelError(
            f"{len(parts)} regions ({', '.join(parts)}) need as many different values of "
            f"regions_class_order, found {values}"
        )
    named = LabelSet.from_names(dict(zip(values, parts, strict=True)), overlapping=True)
    labels_ = tuple(replace(label, parts=parts[label.name]) for label in named)
    return LabelSet(labels_, overlapping=len(set(used)) < len(used))


def read_ignored(path: str | Path) -> tuple[int, ...]:
    """The ignored values that ``path`` states: the label "ignore" of nnU-Net's ``dataset.json``; ()
    for any other file.
    """
    if Path(path).name != DATASET_JSON:
        return ()
    try:
        return without_ignored(read_json(path)["labels"])[1]
    except (InputError, KeyError, TypeError, AttributeError):
        return ()  # reported where the names are read


def without_ignored(labels: dict[str, Any]) -> tuple[dict[str, Any], tuple[int, ...]]:
    """``labels`` of nnU-Net's ``dataset.json`` without the reserved "ignore", and its value."""
    value = labels.get(NNUNET_IGNORE)
    if not isinstance(value, int):
        return labels, ()
    return {name: v for name, v in labels.items() if name != NNUNET_IGNORE}, (value,)


def read_label_colours(path: str | Path) -> dict[int, str]:
    """Colour code 0xRRGGBB -> name, from a CSV with a header that has a name and the columns red,
    green and blue (or r, g, b), or one column of colours such as #ff0000; black is background. {}
    for any other file.

    Raises:
        InputError: the file cannot be read, or a colour in it is none.
    """
    try:
        rows = list(csv.DictReader(read_text(path).splitlines()))
    except csv.Error as error:
        raise InputError(f"cannot be read ({error})", path=path) from error
    found: dict[int, str] = {}
    for row in rows:
        fields = {str(k).strip().lower(): str(v or "").strip() for k, v in row.items()}
        name = fields.get("name") or fields.get("class") or fields.get("label") or ""
        parts = [fields.get(c) or fields.get(c[0]) or "" for c in ("red", "green", "blue")]
        text = fields.get("colour") or fields.get("color") or ""
        if not name or not (text or all(parts)):
            continue
        try:
            code = (
                int(text.removeprefix("#"), 16) if text else int(bytes(map(int, parts)).hex(), 16)
            )
        except ValueError as error:
            raise InputError(f"{text or ','.join(parts)!r} is no colour", path=path) from error
        if code:
            found[code] = name
    return found


def _parsed(file: Path, text: str) -> Any:
    return (parse_json if file.suffix.lower() == ".json" else parse_yaml)(text)


def _from_data(data: Any, reserves: bool) -> LabelSet:
    """``reserves``: the name "ignore" is no structure."""
    # The names may be inside the key "labels", next to other data.
    order = data.get("regions_class_order") if isinstance(data, dict) else None
    overlapping = bool(data.get("overlapping")) if isinstance(data, dict) else False
    if isinstance(data, dict) and isinstance(data.get("labels"), list | dict):
        data = data["labels"]
    if reserves and isinstance(data, dict):
        data = without_ignored(data)[0]
    if isinstance(data, dict) and any(isinstance(value, list) for value in data.values()):
        return regions_of(data, order)
    if not data:
        raise ValueError("no label found")
    # A list of entries: a LabelSet as JSON has colours, other lists have only value and name.
    if isinstance(data, list):
        if all("colour" in entry for entry in data):
            return LabelSet.from_json(data, overlapping)
        return LabelSet.from_names({_whole(entry["value"]): entry["name"] for entry in data})
    # A mapping may be value -> name or name -> value; the numeric side is the value.
    pairs = [(k, v) if str(k).strip().lstrip("-").isdigit() else (v, k) for k, v in data.items()]
    return _unique([(_whole(value), str(name)) for value, name in pairs])


def _whole(value: Any) -> int:
    """The value of a label; ``int`` alone would read 1.9, and true, as 1."""
    found = int(value)
    if isinstance(value, bool) or (isinstance(value, float) and value != found):
        raise ValueError(f"{value} is no whole number")
    return found


def _from_csv(text: str) -> LabelSet:
    first = text.split("\n")[0]
    delimiter = next((d for d in "\t;" if d in first), ",")
    rows = [row for row in csv.reader(text.splitlines(), delimiter=delimiter) if row]
    cells = [cell.strip().lower() for cell in rows[0]]
    # A first row without a number is a header line, whose words identify the columns.
    if any(cell.isdigit() for cell in cells):
        value, name, body = (0, 1, rows) if cells[0].isdigit() else (1, 0, rows)
    else:
        name = next(iter(_columns_with(NAME_COLUMNS, cells)), 1)
        values = [column for column in _columns_with(VALUE_COLUMNS, cells) if column != name]
        value, body = (values[0] if values else 0), rows[1:]
    return _unique([(int(row[value]), row[name].strip()) for row in body])


def _columns_with(words: Sequence[str], headings: Sequence[str]) -> list[int]:
    """The columns whose heading has one of ``words``, those of the first word first ("Label Name"
    has two words).
    """
    parts = [re.split(r"[\W_]+", heading) for heading in headings]
    return [column for word in words for column, part in enumerate(parts) if word in part]


def _unique(pairs: list[tuple[int, str]]) -> LabelSet:
    if not pairs:
        raise ValueError("no label found")
    # A value with two names is an error; equal names are refused by LabelSet.
    values = [v for v, _ in pairs]
    if len(set(values)) < len(values):
        raise LabelError(
            f"label value given twice: {sorted({v for v in values if values.count(v) > 1})}"
        )
    return LabelSet.from_names(dict(pairs))
