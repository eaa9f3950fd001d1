"""Runs: the training runs below a folder, and the space that finished ones can free."""

from __future__ import annotations

import math
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..core.bundle import Bundle
from ..core.errors import DelineateError, InputError, OutputError
from ..core.inputs import read_json_if_any, read_json_lines
from ..core.words import data_size, decimals, duration
from ..evaluation.training_verdict import Verdict
from ..execution.claims import CLAIM, holder_of

if TYPE_CHECKING:
    from rich.table import Table

ENDING = ".run"
STORE = "store"


@dataclass(frozen=True)
class RunSummary:
    """One training run.

    Args:
        folder: ``MODEL.run``.
        state: "running" while a process trains it; "finished" if it has its card and its model;
            else "stopped", and the same command continues it.
        epochs: of the network that was trained longest; 0 before the first one.
        steps: of all networks together.
        dice: mean Dice of the scored cases, else the best validation Dice; NaN without either.
        dice_of: "test", "validation" or "cross-validation"; "" without Dice.
        changed: time of the last change, in seconds since 1970.
        size_bytes, store_bytes: on disk; the store is a part of the size.
        verdict: "unknown" before the run has ended.
    """

    folder: Path
    state: Literal["running", "finished", "stopped"]
    epochs: float
    steps: int
    dice: float
    dice_of: str
    changed: float
    size_bytes: int
    store_bytes: int
    verdict: Verdict

    @property
    def model(self) -> Path:
        """The model that the run writes."""
        return self.folder.with_name(self.folder.name.removesuffix(ENDING))

    def to_json(self) -> dict[str, Any]:
        """Plain data, with paths as text."""
        changed = datetime.fromtimestamp(self.changed).isoformat(timespec="seconds")
        paths = {"folder": str(self.folder), "model": str(self.model)}
        return {**vars(self), **paths, "changed": changed, "verdict": self.verdict.to_json()}


def is_run(path: str | Path) -> bool:
    """Whether ``path`` is the folder of a training run, MODEL.run."""
    folder = Path(path)
    return folder.name.endswith(ENDING) and any(
        (folder / name).is_file() for name in ("request.json", "card.json")
    )


def runs(folder: str | Path = ".") -> list[RunSummary]:
    """All runs in ``folder`` and below it, or the run that ``folder`` itself is, by path. Links to
    folders are not followed.

    Raises:
        InputError: ``folder`` does not exist.
    """
    if not Path(folder).is_dir():
        raise InputError("is not a folder", path=folder)
    return [summarise(run) for run in sorted(_folders(Path(folder)))]


def _folders(root: Path) -> Iterator[Path]:
    for place, folders, _ in os.walk(root):
        if is_run(place):
            yield Path(place)
            folders.clear()


def summarise(run: Path) -> RunSummary:
    """The summary of one run; files that are missing or damaged count as absent."""
    card = _read(run / "card.json")
    logs = sorted([*run.glob("fold_*/log.jsonl"), *run.glob("fold_*/*/log.jsonl")])
    lines = [found for path in logs if (found := _log(path))]
    scores = card.get("scores")
    dice, dice_of = _dice(scores if isinstance(scores, dict) else {}, lines)
    model = run.with_name(run.name.removesuffix(ENDING))
    finished = (run / "card.json").is_file() and model.is_file()
    size, changed = _size(run)
    return RunSummary(
        run,
        "running" if holder_of(run / CLAIM) else "finished" if finished else "stopped",
        max((_number(one[-1].get("epoch")) or 0.0 for one in lines), default=0.0),
        sum(int(_number(one[-1].get("step")) or 0) for one in lines),
        dice,
        dice_of,
        changed,
        size,
        _size(run / STORE)[0],
        Verdict.from_json(card.get("verdict")),
    )


def _dice(scores: dict[str, Any], logs: list[list[dict[str, Any]]]) -> tuple[float, str]:
    """Dice of the scored cases, else the mean over networks of the best validation Dice."""
    if (scored := _number(scores.get("dice_mean"))) is not None:
        return scored, str(scores.get("what", ""))
    values = [[_number(line.get("val_dice_mean")) for line in lines] for lines in logs]
    best = [max(known) for one in values if (known := [v for v in one if v is not None])]
    return (sum(best) / len(best), "validation") if best else (math.nan, "")


def _number(value: Any) -> float | None:
    """A finite number; None for anything else."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and abs(value) < sys.float_info.max else None


def _read(path: Path) -> dict[str, Any]:
    try:
        found = read_json_if_any(path)
    except InputError:
        return {}
    return found if isinstance(found, dict) else {}


def _log(path: Path) -> list[dict[str, Any]]:
    try:
        return read_json_lines(path)
    except DelineateError:
        return []


def _size(folder: Path) -> tuple[int, float]:
    """Bytes on disk, and the time of the last change; links are not followed."""
    total, changed = 0, 0.0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                found = os.lstat(os.path.join(place, name))
            except OSError:  # deleted meanwhile
                continue
            total, changed = total + found.st_size, max(changed, found.st_mtime)
    return total, changed


def table(found: Sequence[RunSummary], root: str | Path = ".") -> Table:
    """The runs for a terminal, named relative to ``root``."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    total = data_size(sum(run.size_bytes for run in found))
    shown = Table(caption=f"{total} in all", box=SIMPLE_HEAD, pad_edge=False)
    has_verdict = any(run.verdict != Verdict() for run in found)
    columns = ["model", "state", "epochs", "steps", "Dice", "of", "age", "size", "store"]
    if has_verdict:  # a terminal of 80 columns has no room for all
        columns = ["model", "state", "steps", "Dice", "verdict", "age"]
    for name in columns:
        is_text = name in ("model", "state", "of", "verdict")
        shown.add_column(
            name,
            justify="left" if is_text else "right",
            overflow="fold" if name == "model" else "ellipsis",
            no_wrap=name not in ("model", "verdict"),
            min_width=12 if name in ("model", "verdict") else None,
        )
    for run in found:
        cells = {
            "model": os.path.relpath(run.model, root),
            "state": run.state,
            "epochs": f"{run.epochs:.0f}",
            "steps": str(run.steps),
            "Dice": decimals(run.dice),
            "of": run.dice_of,
            "age": _age(time.time() - run.changed),
            "size": data_size(run.size_bytes),
            "store": data_size(run.store_bytes) if run.store_bytes else "–",
            "verdict": run.verdict.level,
        }
        shown.add_row(*(cells[name] for name in columns))
    return shown


def _age(seconds: float) -> str:
    return f"{seconds / 86400:.0f} d" if seconds >= 2 * 86400 else duration(seconds)


# ---- clean ----


def cleanable(paths: Sequence[str | Path]) -> tuple[list[RunSummary], list[str]]:
    """The finished runs whose stores can be deleted, and a sentence about each other run.

    Args:
        paths: folders with runs below them, runs, or models with their run next to them.

    Raises:
        InputError: a path is none of these.
    """
    found: dict[Path, RunSummary] = {}
    for path in map(Path, paths):
        run = path.with_name(path.name + ENDING) if Bundle.is_bundle(path) else path
        found |= {one.folder.resolve(): one for one in runs(run)}
    chosen, kept = [], []
    for one in found.values():
        if why := _why_kept(one):
            kept.append(f"{one.folder}: kept, {why}")
        else:
            chosen.append(one)
    return chosen, kept


def _why_kept(run: RunSummary) -> str:
    """Why the store of a run must not be deleted; "" if it can be."""
    store = run.folder / STORE
    if run.state != "finished":
        return f"the run is {run.state} and needs its prepared cases"
    if run.folder.is_symlink() or store.is_symlink():
        return "it is a link"
    return "" if store.is_dir() else "it has no prepared cases"


def clean(chosen: Sequence[RunSummary]) -> list[RunSummary]:
    """Delete the prepared cases (``store/``) of these runs; the model, its scores, its report and
    everything else stay. Links inside are removed, what they point to is not.

    Returns:
        The runs that were cleaned. A run that has been continued meanwhile is left as it is.

    Raises:
        OutputError: a store cannot be deleted.
    """
    cleaned = []
    for run in chosen:
        if _why_kept(summarise(run.folder)):
            continue
        try:
            shutil.rmtree(run.folder / STORE)
        except OSError as error:
            raise OutputError(
                f"cannot be deleted ({error.strerror})", path=run.folder / STORE
            ) from error
        cleaned.append(run)
    return cleaned
