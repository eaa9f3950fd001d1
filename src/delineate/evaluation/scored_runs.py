"""The scores of a run, wherever they are: a training's folder, a model beside it, an evaluation's
folder or its files.

It reads what ``commands.evaluate`` wrote (``scores.json``, ``scores.csv``, ``slices.csv``) and says
which cases they are of, as the run around them tells. Scores of a table alone (``scores.csv``) know
no patients. It judges nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.errors import InputError, UsageError
from ..core.scores import Score, Scores
from ..core.words import joined

CHOSEN_ON = ("validation", "cross-validation")  # scores of cases that chose the checkpoint


@dataclass(frozen=True)
class ScoredRun:
    """One run's scores.

    Args:
        name: as in tables.
        path: of the file they were read from.
        scores: rows of cases, slices (CASE#0012) or patients.
        labels: the structures.
        cases: the scored cases (of slices, the volumes).
        patients: case -> patient, where known.
        truths: case -> (file, SHA-256 or "") of its truth, where known.
        what: "test", "validation", "cross-validation", or "" where nothing says.
    """

    name: str
    path: Path
    scores: Scores
    labels: tuple[str, ...]
    cases: tuple[str, ...]
    patients: dict[str, str] = field(default_factory=dict)
    truths: dict[str, tuple[str, str]] = field(default_factory=dict)
    what: str = ""


def name_runs(runs: Sequence[str | Path], names: Sequence[str] | None) -> list[str]:
    """One name a run: those given, else the shortest ends of the paths that tell them apart.

    Raises:
        UsageError: as many names as runs are needed, each another.
    """
    if names is None:
        parts = [_parts(Path(os_path).absolute()) for os_path in runs]
        found = ["/".join(p[-1:]) for p in parts]
        for length in range(2, max(map(len, parts)) + 1):
            if len(set(found)) == len(found):
                break
            found = ["/".join(p[-length:]) for p in parts]
        names = found
    names = [n.strip() for n in names]
    if len(names) != len(runs) or not all(names):
        raise UsageError(f"{len(runs)} runs need as many names, found {', '.join(names) or 'none'}")
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise UsageError(
            "a run is compared with others, and each has a name of its own (--names a,b); found "
            f"{', '.join(twice)} twice"
        )
    return names


def _parts(path: Path) -> list[str]:
    """The parts of a path that may name a run: without endings, and without what every evaluation
    is called.
    """
    if path.name in ("scores.json", "scores.csv", "slices.csv"):
        path = path.parent
    parts = [p for p in path.parts if p != path.anchor]
    return (
        [
            *parts[:-1],
            parts[-1]
            .removesuffix(".json")
            .removesuffix(".csv")
            .removesuffix(".run")
            .removesuffix(".model"),
        ]
        if parts
        else ["run"]
    )


def load_run(path: Path, name: str, per: str) -> ScoredRun:
    """The scores of one run.

    Raises:
        InputError: there are none, they are damaged, or they say nothing of slices or patients
            where those are asked for.
    """
    file, what = _scores_file(path)
    beside = file.parent / "scores.json"
    if file.suffix == ".csv" and not beside.is_file():
        if per != "case":
            raise InputError(
                f"a table alone does not say which {per} is whose; give the scores.json of the "
                "evaluation",
                path=file,
            )
        scores = _from_csv(file)
        return ScoredRun(
            name,
            file,
            scores,
            tuple(scores.labels),
            tuple(dict.fromkeys(r.case for r in scores)),
            what=what,
        )
    data = _json(beside if file.suffix == ".csv" else file)
    try:
        cases = {c["case"]: c for c in data["cases"]}
        patients = {case: c["patient"] for case, c in cases.items() if c.get("patient")}
        truths = {
            case: (c.get("truth", ""), c.get("truth_sha256", "")) for case, c in cases.items()
        }
        scores = _rows(data, file, per, patients)
        labels = tuple(label["name"] for label in data["labels"]) or tuple(scores.labels)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"is not the scores.json of an evaluation ({type(error).__name__}: {error})", path=file
        ) from error
    return ScoredRun(name, file, scores, labels, tuple(cases), patients, truths, what)


def _scores_file(path: Path) -> tuple[Path, str]:
    """The file of scores that ``path`` means, and which cases they are of ("test", "validation" ...
    or "").
    """
    from ..core.bundle import Bundle

    if path.is_file() and path.suffix in (".json", ".csv"):
        return path, _what(path.parent)
    folder = path
    if path.is_file():
        if not Bundle.is_bundle(path):
            raise InputError(
                "is no run: give a run's folder, a model, an evaluation's folder, or its "
                "scores.json or scores.csv",
                path=path,
            )
        folder = path.with_name(path.name + ".run")
        if not folder.is_dir():
            raise InputError(
                f"a model does not hold the scores of single cases, and its run {folder.name} is "
                "not beside it; "
                "evaluate its predictions and give that folder",
                path=path,
            )
    if not folder.exists():
        raise InputError("does not exist", path=path)
    for part in (folder, folder / "test", folder / "validation"):
        for name in ("scores.json", "scores.csv"):
            if (part / name).is_file():
                return part / name, _what(part)
    raise InputError(
        "holds no scores: neither scores.json nor scores.csv, here or in test/ or validation/",
        path=folder,
    )


def _what(folder: Path) -> str:
    """Which cases an evaluation's folder is of, as the run around it says."""
    card = folder.absolute().parent / "card.json"
    if folder.absolute().name not in ("test", "validation"):
        return ""
    if folder.absolute().name == "validation" and card.is_file():
        said = (_json(card).get("scores") or {}).get("what", "")
        return said if said in CHOSEN_ON else "validation"
    return folder.absolute().name


def _rows(data: dict[str, Any], file: Path, per: str, patients: dict[str, str]) -> Scores:
    """The rows of cases, slices or patients."""
    if per == "slice" and not data.get("planar"):
        slices = file.parent / "slices.csv"
        if not slices.is_file():
            raise InputError("says nothing of slices; evaluate its predictions again", path=file)
        return _from_csv(slices)
    if per != "patient":
        return (
            _scores(data["rows"]) if file.suffix == ".json" or per == "slice" else _from_csv(file)
        )
    if "patients" in data:
        return _scores(data["patients"]["rows"])
    rows = data["rows"]
    unknown = sorted({r["case"] for r in rows} - set(patients))
    if unknown:
        raise InputError(
            f"does not say whose the cases are ({joined(unknown, 4)}); evaluate against a cohort "
            "that knows its patients",
            path=file,
        )
    return _scores([r | {"case": patients[r["case"]]} for r in rows])


def _scores(rows: list[dict[str, Any]]) -> Scores:
    return Scores(
        tuple(
            Score(
                r["case"],
                r["label"],
                r["metric"],
                float("nan") if r["value"] is None else float(r["value"]),
                r["unit"],
            )
            for r in rows
        )
    )


def _from_csv(file: Path) -> Scores:
    try:
        return Scores.from_csv(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read as scores ({error})", path=file) from error
    except InputError as error:
        raise InputError(error.message, path=file) from error


def _json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read as JSON ({error})", path=path) from error
    if not isinstance(data, dict):
        raise InputError("is not the scores.json of an evaluation", path=path)
    return data
