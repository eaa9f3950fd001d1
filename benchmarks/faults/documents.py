"""Mutants of texts, node by node: the fuzzer's ``--kind structure`` of JSON, lines of JSON, YAML,
XML and tables.

Values are replaced by others of any type, removed, doubled, renamed or nested. A checksum that
delineate wrote is made right again, so that the changes reach the code behind it.
"""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any
from xml.etree import ElementTree

import yaml

from delineate.core.inputs import CHECKSUM, json_text

Place = tuple[Any, Any]  # a mapping or list, and a key or index
VALUES = (
    *(None, True, False, 0, 1, -1, 2, 3, 0.5, -0.0, 1e308, float("nan"), float("inf"), 10**30),
    *("", " ", "0", "-1", "nan", "1e400", "../../x", "/", "a/b", "\0", "é", "x" * 5000, "liver"),
    *([], {}, [None], [0], [1, 2, 3], ["a", "b"], {"a": 1}, {"": None}, [[]], [[1, 2], [3]], "{x}"),
)
CELLS = ("", " ", "-1", "0", "nan", "inf", "1e400", "abc", '"', "1;2", "9" * 400, "x" * 5000, "\0")


def mutant(data: bytes, chance: random.Random) -> bytes | None:
    """The text with a few nodes changed; None if it cannot be divided into nodes."""
    try:
        text = data.decode("utf-8-sig")
        changed = next(filter(None, (form(text, chance) for form in FORMS)), None)
    except (ValueError, RecursionError, yaml.YAMLError, ElementTree.ParseError, csv.Error):
        return None
    return None if changed is None else changed.encode("utf-8", "replace")


def _json(text: str, chance: random.Random) -> str | None:
    try:
        return _dumped(json.loads(text), chance)
    except ValueError:
        return None


def _dumped(found: Any, chance: random.Random) -> str | None:
    if not isinstance(found, dict | list):
        return None
    is_checked = isinstance(found, dict) and bool(found.pop(CHECKSUM, None))
    changed = _changed(found, chance)
    if is_checked and isinstance(changed, dict) and chance.random() < 0.9:
        return json_text(changed)
    return json.dumps(changed)


def _json_lines(text: str, chance: random.Random) -> str | None:
    lines = text.splitlines()
    if not text.startswith("{") or len(lines) < 2:
        return None
    n = chance.randrange(len(lines))
    try:
        lines[n] = _dumped(json.loads(lines[n]), chance) or ""
    except ValueError:
        return None
    return "\n".join(lines) + "\n"


def _yaml(text: str, chance: random.Random) -> str | None:
    # Aliases ("&a") may stand for more nodes than there is time for.
    if ":" not in text or "&" in text or text.startswith("<") or len(text) > 20_000:
        return None
    found = yaml.safe_load(text)
    if not isinstance(found, dict):
        return None
    changed = _changed(found, chance)
    return str(yaml.safe_dump(changed)) if chance.random() < 0.5 else json.dumps(changed)


def _xml(text: str, chance: random.Random) -> str | None:
    if not text.startswith("<"):
        return None
    root = ElementTree.fromstring(text)
    for _ in range(chance.choice((1, 2, 4))):
        parent = chance.choice([one for one in root.iter() if len(one)])
        n = chance.randrange(len(parent))
        one, what = parent[n], chance.randrange(5)
        if what == 0 and one.attrib:
            one.set(chance.choice(list(one.attrib)), str(chance.choice(VALUES)).replace("\0", ""))
        elif what == 1 and one.attrib:
            del one.attrib[chance.choice(list(one.attrib))]
        elif what == 2:
            one.text = chance.choice(CELLS).replace("\0", "")
        elif what == 3:
            parent.insert(n, one)
        else:
            parent.remove(one)
        if not any(len(one) for one in root.iter()):
            break
    return ElementTree.tostring(root, encoding="unicode")


def _table(text: str, chance: random.Random) -> str | None:
    delimiter = next((d for d in "\t;," if d in text.partition("\n")[0]), "")
    rows = list(csv.reader(text.splitlines(), delimiter=delimiter)) if delimiter else []
    if not rows:
        return None
    for _ in range(chance.choice((1, 2, 4))):
        row = chance.choice(rows)
        if not row:
            continue
        n, what = chance.randrange(len(row)), chance.randrange(5)
        if what < 2:
            row[n] = chance.choice(CELLS)
        elif what == 2:
            del row[n]
        elif what == 3:
            row.insert(n, chance.choice(CELLS))
        else:
            rows.insert(chance.randrange(len(rows)), list(row))
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter).writerows(rows)
    return out.getvalue()


FORMS: tuple[Callable[[str, random.Random], str | None], ...] = (
    *(_json, _json_lines, _xml, _yaml, _table),
)


def _changed(found: Any, chance: random.Random) -> Any:
    """Plain data with a few nodes changed, by copies: a node must not hold itself."""
    for _ in range(chance.choice((1, 1, 2, 4))):
        places = list(_places(found))
        if not places:
            break
        holder, key = chance.choice(places)
        what = chance.randrange(8)
        if what < 4:
            holder[key] = deepcopy(chance.choice(VALUES))
        elif what == 4:
            del holder[key]
        elif what == 5:
            other_holder, other = chance.choice(places)
            holder[key] = deepcopy(other_holder[other])
        elif what == 6:
            holder[key] = chance.choice(([holder[key]], {"a": holder[key]}, str(holder[key])))
        elif isinstance(holder, list):
            holder.insert(key, deepcopy(holder[key]))
        else:
            holder[str(chance.choice((*holder, "x", "", "0", "-1")))] = holder.pop(key)
    return found


def _places(data: Any) -> Iterator[Place]:
    """Every value of the data, by what holds it."""
    if isinstance(data, dict | list):
        for key in list(data) if isinstance(data, dict) else range(len(data)):
            yield data, key
            yield from _places(data[key])
