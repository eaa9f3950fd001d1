"""The scores of a run, read from a training folder, a model next to it, an evaluation folder or the
files of an evaluation.

The module reads the files that ``commands.evaluate`` wrote (``scores.json``, ``scores.csv``,
``slices.csv``) and finds out from the run's folder which cases they are of. A ``scores.csv`` alone
has no patients. The module does not compare or interpret scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.errors import InputError, UsageError
from ..core.inputs import read_json
from ..core.scores import Score, Scores
from ..core.words import joined

CHOSEN_ON = ("validation", "cross-validation")  # the checkpoint was chosen on these cases


@dataclass(frozen=True)
class ScoredRun:
    """One run's scores.

    Args:
        name: for tables and plots.
        path: the file that was read.
        scores: rows of cases, slices (CASE#0012) or patients.
        labels: the structures.
        cases: the scored cases (for slices, the volumes).
        patients: case -> patient, if known.
        truths: case -> (file, SHA-256 or "") of its truth, if known.
        what: "test", "validation", "cross-validation", or "" if unknown.
    """

    name: str
    path: Path
    scores: Scores
    labels: tuple[str, ...]
    cases: tuple[str, ...]
    patients: dict[str, str] = field(default_factory=dict)
    truths: dict[str, tuple[str, str]] = field(default_factory=dict)
    what: str = ""


def name_runs(runs: Sequence[str | Path], names: Sequence[str]) -> list[str]:
    """One name per run: the given names, or else the shortest ends of the paths that differ.

    Raises:
        UsageError: the number of names is not that of the runs, or two names are equal.
    """
    if not names:
        # Lengthen all names by one folder at a time until they differ.
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
            f"every run needs a different name (--names a,b); found {', '.join(twice)} more than "
            "once"
        )
    return names


def _parts(path: Path) -> list[str]:
    """The parts of a path that can name a run, without file extensions and without the file names
    that all evaluations share.
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

    Args:
        path: a training or evaluation folder, a model, or a file of scores.
        name: of the run.
        per: "case", "slice" or "patient".

    Raises:
        InputError: there are no scores, they are damaged, or they have no slices or patients
            although ``per`` needs them.
    """
    file, what = _scores_file(path)
    json_file = file.parent / "scores.json"
    # A table without its JSON file has only cases and structures.
    if file.suffix == ".csv" and not json_file.is_file():
        if per != "case":
            raise InputError(
                f"a table alone has no scores per {per}; give the scores.json of the evaluation",
                path=file,
            )
        scores = Scores.from_csv(file)
        return ScoredRun(
            name,
            file,
            scores,
            tuple(scores.labels),
            tuple(dict.fromkeys(r.case for r in scores)),
            what=what,
        )
    data = _json(json_file if file.suffix == ".csv" else file)
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
    """The file of scores for ``path``, and which cases it is of ("test", "validation", ... or "").

    Raises:
        InputError: there is no such file.
    """
    from ..core.bundle import Bundle

    if path.is_file() and path.suffix in (".json", ".csv"):
        return path, _what(path.parent)
    folder = path
    if path.is_file():
        if not Bundle.is_bundle(path):
            raise InputError(
                "is not a run: give a training folder, a model, an evaluation folder, or its "
                "scores.json or scores.csv",
                path=path,
            )
        folder = path.with_name(path.name + ".run")
        if not folder.is_dir():
            raise InputError(
                "a model file does not contain the scores of its cases, and the training folder "
                f"{folder.name} is not next to it; evaluate the model's predictions and give the "
                "folder of that evaluation",
                path=path,
            )
    if not folder.exists():
        raise InputError("does not exist", path=path)
    # Of a training, the test scores come before the validation scores.
    for part in (folder, folder / "test", folder / "validation"):
        for name in ("scores.json", "scores.csv"):
            if (part / name).is_file():
                return part / name, _what(part)
    raise InputError(
        "contains no scores: neither scores.json nor scores.csv, here or in test/ or validation/",
        path=folder,
    )


def _what(folder: Path) -> str:
    """Which cases an evaluation folder is of, from its name and the training's ``card.json``."""
    card = folder.absolute().parent / "card.json"
    if folder.absolute().name not in ("test", "validation"):
        return ""
    if folder.absolute().name == "validation" and card.is_file():
        what = (_json(card).get("scores") or {}).get("what", "")
        return what if what in CHOSEN_ON else "validation"
    return folder.absolute().name


def _rows(data: dict[str, Any], file: Path, per: str, patients: dict[str, str]) -> Scores:
    """The rows of cases, slices or patients.

    Raises:
        InputError: there are no rows of slices, or the patients are unknown.
    """
    if per == "slice" and not data.get("planar"):
        slices = file.parent / "slices.csv"
        if not slices.is_file():
            raise InputError(
                "has no slices.csv next to it; evaluate the predictions again", path=file
            )
        return Scores.from_csv(slices)
    # The slices of 2-D images are the cases themselves.
    if per != "patient":
        return (
            _scores(data["rows"])
            if file.suffix == ".json" or per == "slice"
            else Scores.from_csv(file)
        )
    # Without pooled rows each patient has one case, if the patients are known at all.
    if "patients" in data:
        return _scores(data["patients"]["rows"])
    rows = data["rows"]
    unknown = sorted({r["case"] for r in rows} - set(patients))
    if unknown:
        raise InputError(
            f"has no patients for the cases {joined(unknown, 4)}; evaluate against a cohort with "
            "known patients",
            path=file,
        )
    return _scores([r | {"case": patients[r["case"]]} for r in rows])


def _scores(rows: list[dict[str, Any]]) -> Scores:
    """The rows of ``scores.json`` as scores; null is NaN."""
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


def _json(path: Path) -> dict[str, Any]:
    """The object in a JSON file."""
    data = read_json(path)
    if not isinstance(data, dict):
        raise InputError("is not the scores.json of an evaluation", path=path)
    return data
