"""Patches of a cohort as a dataset of PyTorch, drawn as training draws them.

A sample is a pure function of (plan, cases, seed, epoch, index), so it is the same in every worker
and in every order.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..commands.train.preparation import prepare_cohort
from ..core import atomic
from ..core.errors import UsageError
from ..core.inputs import read_json_if_any
from ..core.manifest import Manifest
from ..core.plan import Augmentation, Plan
from ..core.store import Store, StoredCase
from ..planning import rules
from ..training.patches import draw_sample

# The settings of a plan on which prepared cases depend.
PREPROCESSING = ("channels", "structures", "orientation", "spacing_mm", "crop", "resampling")


class PatchDataset(Dataset[tuple[Tensor, Tensor]]):
    """One random patch of each case; see ``Cohort.to_torch`` for its arguments.

    An item is (image, label): (C, I, J, K) float32 and (I, J, K) int64 class indices, 0 for the
    background and 1, 2 ... for the structures in the order of ``plan.labels``. Item n is from case
    n; ``set_epoch`` draws other patches.

    >>> from delineate import Cohort
    >>> from torch.utils.data import DataLoader
    >>> train = Cohort.find("cohort").to_torch(patch=(16, 16, 8), seed=1)
    >>> images, labels = next(iter(DataLoader(train, batch_size=2, shuffle=True)))
    >>> tuple(images.shape)
    (2, 1, 16, 16, 8)
    >>> val = Cohort.find("cohort").to_torch((16, 16, 8), plan=train.plan, augment=False)
    """

    plan: Plan

    def __init__(
        self,
        cohort: Manifest,
        patch: tuple[int, int, int] | None,
        *,
        plan: Plan | None,
        augment: bool,
        store: str | Path | None,
        seed: int,
    ):
        cohort = cohort.with_truth()
        if plan is None:
            found = rules.fingerprint(cohort)
            plan = rules.plan_with(
                None, found, cohort, "cpu", budget_s=None, epochs=None, seed=seed, dims=None
            )
        # The network of the plan is not used, so that the patch need not fit its strides.
        changes: dict[str, Any] = {"batch": 1, "patch": patch or plan.patch}
        if len(changes["patch"]) != 3 or min(changes["patch"]) < 1:
            raise UsageError(f"a patch has three positive numbers of voxels, found {patch}")
        changes |= {} if augment else {"augmentation": Augmentation.none()}
        self.plan = plan
        self.seed, self.epoch = seed, 0
        self._drawing = plan.model_copy(update=changes)
        self._temporary = TemporaryDirectory(prefix="delineate-") if store is None else None
        self._store = Store(self._temporary.name if self._temporary else str(store))
        self._opened: dict[str, StoredCase] = {}
        _refuse_other_contents(self._store.folder, plan, cohort)
        for outcome in prepare_cohort(cohort, self._drawing, self._store):
            if outcome.error is not None:
                raise outcome.error
        self.cases = [case.id for case in cohort]

    def __len__(self) -> int:
        """The number of cases."""
        return len(self.cases)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """The patch of case ``index`` in this epoch."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"the dataset has {len(self)} cases, found index {index}")
        case, rng = self._case(index), np.random.default_rng([self.seed, self.epoch, index])
        # Many small operations: threads would cost more than they save, and workers share cores.
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return draw_sample(self._drawing, [case], rng)
        finally:
            torch.set_num_threads(threads)

    def set_epoch(self, epoch: int) -> None:
        """Draw the patches of another epoch. Call it before the loader starts its workers; workers
        that stay (``persistent_workers``) keep their epoch.
        """
        self.epoch = epoch

    def _case(self, index: int) -> StoredCase:
        """The prepared case, opened once in each process."""
        name = self.cases[index]
        if name not in self._opened:
            self._opened[name] = self._store.open(name)
        return self._opened[name]

    def __getstate__(self) -> dict[str, Any]:
        # Open files stay with this process, and so does the temporary folder.
        return {**vars(self), "_opened": {}, "_temporary": None}


def _refuse_other_contents(store: Path, plan: Plan, cohort: Manifest) -> None:
    """Note in the store what it is made of: the preprocessing, and the files of each case.

    Raises:
        UsageError: it holds cases of other preprocessing, or cases of these names from other files.
    """
    note = store / "contents.json"
    made_of = {case.id: [s.to_json() for s in (*case.images, *case.label)] for case in cohort}
    how = plan.model_dump(mode="json", include=set(PREPROCESSING))
    kept = read_json_if_any(note) or {"preprocessing": how, "cases": {}}
    if kept["preprocessing"] != how:
        raise UsageError("holds cases prepared by another plan; choose another folder", path=store)
    other = [name for name, files in made_of.items() if kept["cases"].get(name, files) != files]
    if other:
        raise UsageError(
            f"holds a case {other[0]} from other files; choose another folder", path=store
        )
    atomic.make_folder(store)
    atomic.write_json(note, {**kept, "cases": {**kept["cases"], **made_of}})
