"""Damaged texts that a person hands in, or that delineate wrote and someone changed: outlines,
splits, manifests, choices of structures, descriptions, scores and records of predictions.

``READ`` says how each is read, and what the sound one gives.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .made import add

_POLYGON = [1, 1, 4, 1, 4, 4, 1, 4]
_COCO: dict[str, Any] = {
    "images": [{"id": 1, "file_name": "a.png", "width": 12, "height": 10}],
    "categories": [{"id": 1, "name": "liver"}, {"id": 2, "name": "cyst"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [_POLYGON], "iscrowd": 0},
        {
            "id": 2,
            "image_id": 1,
            "category_id": 2,
            "segmentation": {"size": [10, 12], "counts": [5, 10, 105]},
            "iscrowd": 1,
        },
    ],
}
_LABELME: dict[str, Any] = {
    "imagePath": "a.png",
    "imageWidth": 12,
    "imageHeight": 10,
    "shapes": [
        {"label": "liver", "points": [[1, 1], [4, 1], [4, 4]], "shape_type": "polygon"},
        {"label": "cyst", "points": [[5, 5], [6, 6]], "shape_type": "circle"},
    ],
}
_CVAT = (
    '<annotations><image id="0" name="a.png" width="12" height="10">'
    '<polygon label="liver" points="1,1;4,1;4,4" z_order="0"/>'
    '<mask label="cyst" rle="2,3,1" left="1" top="1" width="3" height="2"/>'
    "</image></annotations>"
)
_BOMB = (
    '<!DOCTYPE a [<!ENTITY a "xxxxxxxxxx">'
    + "".join(f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(9))
    + "]>"
)
_MANIFEST = (
    '{"delineate_manifest": 1, "channels": ["CT"], "labels": [{"value": 1, "name": "liver", '
    '"colour": [1, 2, 3]}], "mapping": {"rest": "refuse"}}\n'
    '{"id": "a", "patient": "a", "images": [{"path": "a.nii.gz"}], "split": "train"}\n'
)
_DESCRIPTION = "channels: {CT: 'records/{id}.ct'}\nlabels: {liver: 1, spleen: [2, 3]}\n"
_PREDICTIONS = '{"cases": {"a": {"file": "a.nii.gz", "flags": []}}}'


# ---- reading them ----


def _outlines(path: Path) -> list[str]:
    from delineate.formats import outlines

    found = outlines.load(path)
    for picture in found.pictures:
        outlines.read(path, picture.name)
    return list(found.names)


def _split(path: Path) -> dict[str, str]:
    from delineate.cohorts.splitting import read_split

    return {name: str(side) for name, side in read_split(str(path), 0).sides.items()}


def _manifest(path: Path) -> list[str]:
    from delineate.core.manifest import Manifest

    return [case.id for case in Manifest.load(path).cases]


def _structures(path: Path) -> list[str]:
    from delineate.cohorts.discovery.structures import StructureSelection

    return list(StructureSelection.load(path).structures)


def _description(path: Path) -> list[str]:
    from delineate.cohorts.discovery import description

    return list(description.load(path).channels)


def _scores(path: Path) -> list[float]:
    from delineate.core.scores import Scores

    return [row.value for row in Scores.from_csv(path).rows]


def _predictions(path: Path) -> list[str]:
    from delineate.evaluation.pairing import prediction_record

    return list(prediction_record(path.parent).get("cases", {}))


def _journal(path: Path) -> list[str]:
    from delineate.commands.options import PredictOptions
    from delineate.commands.predict.journal import Journal

    return list(Journal(path.parent, "model", PredictOptions()).entries)


def _run(path: Path) -> float:
    from delineate.commands.runs import summarise

    return summarise(path.parent).dice


NAMES = ["cyst", "liver"]
READ: dict[str, tuple[Callable[[Path], Any], Any]] = {
    "outlines": (_outlines, NAMES),
    "split": (_split, {"a": "train", "b": "test"}),
    "manifest": (_manifest, ["a"]),
    "structures": (_structures, ["liver", "tumour"]),
    "description": (_description, ["CT"]),
    "scores": (_scores, [0.9]),
    "predictions": (_predictions, ["a"]),
    "journal": (_journal, ["a"]),
    "run": (_run, 0.8),
}


# ---- the files ----


def _put(
    form: str, what: str, name: str, text: str | dict[str, Any] | list[Any], reading: str
) -> None:
    content = text if isinstance(text, str) else json.dumps(text)
    accepted = what.endswith("sound") or what.endswith("left out")
    if "/" not in name:
        add(form, what, name, content.encode(), accepted, reading)
        return
    # Some are found by their folder and name.
    folder, _, file = name.partition("/")

    def write(path: Path) -> None:
        path.mkdir()
        (path / file).write_text(content, encoding="utf-8")

    add(form, what, folder, write, accepted, f"{reading}/{file}")


def _changed(data: dict[str, Any], *keys: Any, to: Any) -> dict[str, Any]:
    """A copy of the data with another value at a place."""
    copy: dict[str, Any] = json.loads(json.dumps(data))
    place: Any = copy
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = to
    return copy


def _outline_files() -> None:
    def coco(what: str, *keys: Any, to: Any = None) -> None:
        text = _changed(_COCO, *keys, to=to) if keys else _COCO
        _put("Outlines", f"COCO: {what}", "a.json", text, "outlines")

    coco("sound")
    coco("a width of infinity", "images", 0, "width", to=float("inf"))
    coco("a width of -1", "images", 0, "width", to=-1)
    coco("sizes of 10^9", "images", 0, "width", to=10**9)
    coco("runs that are infinite", "annotations", 1, "segmentation", "counts", 0, to=float("inf"))
    coco("an unknown category", "annotations", 0, "category_id", to=7)
    coco("no outlines", "annotations", to=[])
    _put("Outlines", "labelme: sound", "a.json", _LABELME, "outlines")
    far = _changed(_LABELME, "shapes", 0, "points", 0, to=[1e308, -1e308])
    _put("Outlines", "labelme: a corner at 10^308", "a.json", far, "outlines")
    _put(
        "Outlines",
        "labelme: no label",
        "a.json",
        _changed(_LABELME, "shapes", 0, to={}),
        "outlines",
    )
    _put("Outlines", "CVAT: sound", "a.xml", _CVAT, "outlines")
    _put("Outlines", "CVAT: cut", "a.xml", _CVAT[:100], "outlines")
    far_text = _CVAT.replace("4,4", "1e308,-1e308")
    _put("Outlines", "CVAT: a corner at 10^308", "a.xml", far_text, "outlines")
    negative = _CVAT.replace('width="12"', 'width="-12"')
    _put("Outlines", "CVAT: a width of -12", "a.xml", negative, "outlines")
    bomb = _BOMB + _CVAT.replace('"liver"', '"&j;"')
    _put("Outlines", "CVAT: entities that grow to 10^10 letters", "a.xml", bomb, "outlines")


def _others() -> None:
    form = "Lists of cases"
    _put(form, "split: sound", "s.json", {"train": ["a"], "test": ["b"]}, "split")
    _put(form, "split: folds that are a number", "s.json", {"folds": 3, "test": []}, "split")
    _put(form, "split: a fold that is a number", "s.json", {"folds": [3], "test": []}, "split")
    _put(form, "split: a case on two sides", "s.json", {"train": ["a"], "test": ["a"]}, "split")
    _put(form, "manifest: sound", "m.jsonl", _MANIFEST, "manifest")
    for what, old, new in (
        ("an id that is a number", '"id": "a"', '"id": 1.5'),
        ("an id of a path", '"id": "a"', '"id": "../a"'),
        ("a value of infinity", '"value": 1', '"value": Infinity'),
        ("a mapping that is a word", '{"rest": "refuse"}', '"refuse"'),
        ("no images", '[{"path": "a.nii.gz"}]', "[]"),
    ):
        _put(form, f"manifest: {what}", "m.jsonl", _MANIFEST.replace(old, new), "manifest")
    form = "Descriptions"
    choice = "labels:\n  liver: [1, 2]\n  tumour: tumor*\n"
    _put(form, "structures: sound", "l.yaml", choice, "structures")
    _put(form, "structures: a list", "l.yaml", "- 1\n- 2\n", "structures")
    _put(form, "structures: none", "l.yaml", "labels: {}\n", "structures")
    _put(form, "folder: sound", "d.yaml", _DESCRIPTION, "description")
    _put(form, "folder: an unknown key", "d.yaml", _DESCRIPTION + "x: 1\n", "description")
    _put(form, "folder: no channels", "d.yaml", "label: x\n", "description")
    _put(form, "folder: a number", "d.yaml", "7\n", "description")
    form = "Results"
    scores = "case,label,metric,value,unit\na,liver,dice,0.9,\n"
    _put(form, "scores: sound", "s.csv", scores, "scores")
    _put(form, "scores: a value that is a word", "s.csv", scores.replace("0.9", "x"), "scores")
    _put(form, "scores: a row twice", "s.csv", scores + scores.partition("\n")[2], "scores")
    file = "out/predictions.json"
    _put(form, "predictions: sound", file, _PREDICTIONS, "predictions")
    _put(form, "predictions: cases that are a word", file, '{"cases": "a"}', "predictions")
    _put(form, "predictions: a case that is a number", file, '{"cases": {"a": 7}}', "predictions")
    line = '{"case": "a", "entry": {"file": "a.nii.gz"}}\n'
    broken = '{"case": "b"}\n{"case": "c", "entry": []}\n'
    file = "out/predictions.jsonl"
    _put(form, "journal: sound", file, line, "journal")
    _put(form, "journal: lines of another form are left out", file, line + broken, "journal")
    card = {"scores": {"dice_mean": 0.8, "what": "test"}}
    _put(form, "card: sound", "a.run/card.json", card, "run")


_outline_files()
_others()
