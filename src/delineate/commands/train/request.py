"""The request of a training: data, time, and the split of the cases.

Request and plan define a run; a run continues only with the same request.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path

from ...cohorts.splitting import SplitRule, is_ratio, read_split
from ...core.errors import InputError, UsageError
from ...extend.registers import LOSSES, NETWORKS, name_in
from ...planning.changes import parse_change
from ...planning.rules import VALIDATION_FOLDS
from ..options import CheckOptions, TrainOptions

# The files that a training reads in addition to its data.
PATHS = ("plan", "split", "init", "labels", "description")


@dataclass(frozen=True)
class Request:
    """Data and settings of a training; texts are empty and numbers None if they are not given."""

    data: str
    budget_s: float | None = None
    at_most_s: float | None = None
    epochs: int | None = None
    deterministic: bool = False
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
    ignore: tuple[int, ...] = ()
    modality: str = ""
    unit: str = ""
    fix_series: str = ""
    register_by: str = ""
    dims: int | None = None
    network: str = ""  # registered, instead of the one of the rules
    loss: str = ""  # a registered term that is added, NAME or NAME=WEIGHT
    changes: tuple[str, ...] = ()  # fields of the plan, such as "loss.focal=1"
    licence: str = ""  # of the weights

    @property
    def check_options(self) -> CheckOptions:
        """How its cases are found."""
        return CheckOptions(
            layout=self.layout or None,
            description=self.description or None,
            labels=self.labels or None,
            patient=self.patient or None,
            ignore=tuple(self.ignore),
            modality=self.modality or None,
            unit=self.unit or None,
            fix_series=self.fix_series or None,
            register_by=self.register_by or None,
        )

    @property
    def limit_s(self) -> float | None:
        """The time at which everything must have ended; None without a budget."""
        return self.budget_s if self.at_most_s is None else self.at_most_s

    @property
    def files(self) -> list[str]:
        """The files that the training reads in addition to the data."""
        given = [path for name in PATHS if (path := getattr(self, name))]
        return [path for path in given if path != self.split or not is_ratio(path)]

    def validated(self) -> Request:
        """This request, if its settings agree.

        Raises:
            InputError: a path does not exist.
            UsageError: settings that exclude each other, or are out of range.
        """
        for given in (self.data, *self.files):
            if not Path(given).exists():
                raise InputError("does not exist", path=given)
        if self.budget_s is not None and self.epochs is not None:
            raise UsageError("--budget and --epochs exclude each other")
        if self.budget_s is not None and self.deterministic:
            raise UsageError(
                "--deterministic needs --epochs: what is trained in a budget depends on the speed "
                "of the machine"
            )
        if self.at_most_s is not None and self.at_most_s < (self.budget_s or float("inf")):
            raise UsageError("--at-most is a time that is longer than that of --budget")
        if self.budget_s is not None and self.budget_s < 30:
            raise UsageError(
                f"a budget of {self.budget_s:g} s is too short for a model; at least 30s are needed"
            )
        self._refuse_unfit_folds()
        return self

    def _refuse_unfit_folds(self) -> None:
        if self.folds is not None and self.folds < 2:
            raise UsageError(f"--folds must be at least 2, found {self.folds}")
        rule = read_split(self.split, self.fold) if self.split else SplitRule("")
        count = len(set(rule.folds.values()))
        if self.folds is not None and count not in (0, self.folds):
            raise UsageError(f"--folds {self.folds}, but {self.split} has {count} folds")
        # A file with the lists of each fold has its own choice by --fold.
        chosen = self.folds if rule.by_fold else self.folds or self.fold is not None
        if rule.has_validation and chosen:
            raise UsageError(
                "--split with validation cases excludes --folds and --fold: each defines the "
                "validation cases"
            )
        count = self.folds or count or VALIDATION_FOLDS
        if self.fold is not None and not rule.by_fold and not 0 <= self.fold < count:
            raise UsageError(f"--fold must be 0 to {count - 1}, found {self.fold}")


def request_of(data: str | Path, options: TrainOptions) -> Request:
    """The part of the options that defines a run: paths are absolute, and a text or a path that is
    not given is empty.

    Raises:
        InputError: a path does not exist.
        UsageError: settings that exclude each other, or are out of range.
    """
    if options.recipe is not None and (options.plan is not None or options.dims is not None):
        raise UsageError("--recipe makes the plan: it excludes --plan and --dims")
    if options.network is not None and (options.plan is not None or options.recipe is not None):
        raise UsageError("--plan and --recipe name their network: they exclude --network")
    given = {one.name: getattr(options, one.name) for one in fields(Request) if one.name != "data"}
    given["network"] = name_in(NETWORKS, options.network)
    given["loss"] = name_in(LOSSES, options.loss)
    for name in PATHS:
        text = "" if given[name] is None else str(given[name])
        is_path = bool(text) and not (name == "split" and is_ratio(text))
        given[name] = os.path.abspath(text) if is_path else text
    found = ("layout", "patient", "modality", "unit", "fix_series", "register_by")
    texts = {name: given[name] or "" for name in ("recipe", *found, "licence")}
    for text in options.changes:
        parse_change(text)  # refused before anything is read
    return Request(data=os.path.abspath(data), **{**given, **texts}).validated()
