"""What a training was asked for: data, time, who trains and who tests. It fixes a run beside its
plan; a run goes on only under the same request.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ...core.errors import InputError, UsageError
from ...core.manifest import Split
from ...planning.rules import VALIDATION_FOLDS


@dataclass(frozen=True)
class Request:
    """What was asked for; a run goes on only under the same request."""

    data: str
    budget_s: float | None = None
    epochs: int | None = None
    plan: str = ""
    recipe: str = ""
    fold: int | None = None
    folds: int | None = None
    split: str = ""
    init: str = ""
    seed: int = 0
    device: str = "auto"
    layout: str = ""
    description: str = ""
    labels: str = ""
    patient: str = ""
    dims: int | None = None

    @property
    def files(self) -> list[str]:
        """The files beside the data that the training reads."""
        return [
            path
            for path in (self.plan, self.split, self.init, self.labels, self.description)
            if path
        ]

    def validated(self) -> Request:
        """This request, refused where its words exclude each other.

        Raises:
            InputError: a path that does not exist.
            UsageError: with what excludes what.
        """
        for given in (self.data, *self.files):
            if not Path(given).exists():
                raise InputError("does not exist", path=given)
        if self.budget_s is not None and self.epochs is not None:
            raise UsageError("--budget and --epochs exclude each other")
        if self.budget_s is not None and self.budget_s < 30:
            raise UsageError(
                f"a budget of {self.budget_s:g} s is too short for a model; the least is 30s"
            )
        if self.fold is not None and not 0 <= self.fold < (self.folds or VALIDATION_FOLDS):
            raise UsageError(
                f"--fold counts from 0 to {(self.folds or VALIDATION_FOLDS) - 1}, found {self.fold}"
            )
        if self.folds is not None and self.folds < 2:
            raise UsageError(f"--folds takes at least 2, found {self.folds}")
        if self.split and (self.folds or self.fold is not None):
            raise UsageError(
                "--split says who trains and who validates; --fold and --folds do the same: give "
                "one of them"
            )
        return self


def read_split(path: str) -> dict[str, Split]:
    """A split file: JSON with ``train``, ``val`` and ``test``, each a list of case or patient ids,
    any of them absent.

    Raises:
        InputError: not such a file, or one id on two sides.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", path=path) from error
    except ValueError as error:
        raise InputError(f"is not JSON ({error})", path=path) from error
    sides: tuple[Split, ...] = ("train", "val", "test")
    if (
        not isinstance(data, dict)
        or not data
        or set(data) - set(sides)
        or not all(isinstance(v, list) for v in data.values())
    ):
        raise InputError(
            'a split file is {"train": [ids], "val": [ids], "test": [ids]}, any of them absent',
            path=path,
        )
    split_of: dict[str, Split] = {}
    for side in sides:
        for name in map(str, data.get(str(side), [])):
            if split_of.setdefault(name, side) != side:
                raise InputError(f"{name} stands in {split_of[name]} and in {side}", path=path)
    return split_of
