"""A training run: its request, its folder and its time, fixed when it is opened.

``MODEL.run/``, the folder next to the model, holds

    clock.json                                  seconds spent so far
    running.json                                the process that trains it, while it does
    request.json manifest.jsonl                 the request; training, validation and test cases
    findings.json fingerprint.json plan.json    problems of the cohort, its statistics, the plan

A request that differs from the one in the folder is refused, unless the run starts from scratch.
Knows nothing of networks.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ...cohorts.discovery.originals import files_of
from ...core import atomic
from ...core.errors import DelineateError, OutputError, UsageError
from ...core.inputs import as_read, read_json
from ...core.manifest import Manifest
from ...core.outputs import Originals
from ...core.progress import Progress, Say, silent, unsaid
from ...core.schema import migrate
from ...core.scores import without_nan
from ...core.store import Store
from ...execution.claims import CLAIM, Claim, holder_of
from ...execution.executor import LOCALLY, Work
from ...execution.shards import files_of_shards
from ...extend.parts import Listener, Recipe
from .clock import RunClock
from .request import Request
from .together import Leader


@dataclass(frozen=True)
class TrainingRun:
    """What is fixed from a run's first start to its last.

    Args:
        request: data and settings.
        model: the bundle to write.
        clock: the time spent and left.
        recipe: makes the plan; None for the rules of ``planning.rules``.
        listeners: receive the figures of each network's training.
        claim: of this process on the folder, once it has one.
        leader: of the processes that train together (``together.Leader``); None in one alone.
        work: where cases are checked and prepared, and which of them; where networks are trained.
        workers: networks that are trained at the same time; None for the engine's own number.
        say, progress: see ``core.progress``.
    """

    request: Request
    model: Path
    clock: RunClock
    recipe: Recipe | None = None
    listeners: Mapping[str, Listener] = field(default_factory=dict)
    say: Say = unsaid
    progress: Progress = silent
    claim: Claim | None = None
    leader: Leader | None = None
    work: Work = LOCALLY
    workers: int | None = None

    @property
    def folder(self) -> Path:
        return folder_of(self.model)

    @property
    def store(self) -> Store:
        """The prepared cases."""
        return Store(self.folder / "store")

    @property
    def is_finished(self) -> bool:
        return (self.folder / "card.json").is_file() and self.model.is_file()

    def extended(self, seconds: float) -> TrainingRun:
        """The finished run with more time; a run that was killed in an extension of the same
        length continues.

        Raises:
            UsageError: see ``RunClock.extended``.
        """
        clock = self.clock.extended(seconds, self.is_finished)
        if clock is not self.clock:
            clock.save()
            (self.folder / "card.json").unlink()
        return replace(self, clock=clock)

    def confirm_claim(self) -> None:
        """Refuse to write more if another process has taken over.

        Raises:
            OutputError: see ``Claim.confirm``.
        """
        if self.claim is not None:
            self.claim.confirm()

    def save_json(self, name: str, data: dict[str, Any]) -> None:
        """Write one file of the run's folder; NaN becomes null."""
        atomic.write_json(self.folder / name, without_nan(data))


def folder_of(model: Path) -> Path:
    """The folder of the run that writes ``model``."""
    return model.with_name(model.name + ".run")


def open_run(
    request: Request,
    model: Path,
    overwrite: bool = False,
    *,
    recipe: Recipe | None = None,
    listeners: Mapping[str, Listener] | None = None,
    work: Work = LOCALLY,
    say: Say = unsaid,
    progress: Progress = silent,
) -> TrainingRun:
    """The run of ``model``: a new one, or the existing one if it has the same request. A shard
    removes nothing, because others may work there.

    Raises:
        UsageError: there is a run with other settings, or a model without its run.
        OutputError: ``model`` is a folder, or the run's folder cannot be made.
    """
    folder = folder_of(model)
    if continues(request, model, overwrite, work):
        say(f"continuing the run in {folder}")
    elif overwrite or (folder / "request.json").is_file():
        Originals(_inputs_of(request, folder)).refuse_removing(folder)
        shutil.rmtree(folder, ignore_errors=True)
    atomic.make_folder(folder)
    clock = RunClock.load(folder / "clock.json", request.limit_s)
    return TrainingRun(request, model, clock, recipe, listeners or {}, say, progress, work=work)


def continues(request: Request, model: Path, overwrite: bool = False, work: Work = LOCALLY) -> bool:
    """Whether there is a run of ``model`` that this request continues; writes nothing.

    Raises:
        UsageError: there is a run with other settings that is being trained or has a plan, or a
            model without its run.
        OutputError: ``model`` is a folder.
    """
    folder = folder_of(model)
    if model.is_dir():
        raise OutputError("is a folder; a model is one file, give a file name", path=model)
    others = files_of_shards(folder, CLAIM) if work.shard.is_whole else []
    for path, what in ((folder / CLAIM, "trained"), *((one, "prepared") for one in others)):
        if holder := holder_of(path):
            raise UsageError(
                f"is being {what} now, by {holder}; wait for its end, or stop it first",
                path=folder,
            )
    if overwrite:
        return False
    # A run that has no plan yet has nothing to continue, except for shards.
    is_begun = (folder / "plan.json").is_file() or not work.shard.is_whole
    if (folder / "request.json").is_file() and is_begun:
        _refuse_other_request(request, folder / "request.json")
        return True
    if model.exists():
        raise UsageError(
            "exists already, but its run folder does not; choose another file, or start from "
            "scratch with --overwrite",
            path=model,
        )
    return False


def _refuse_other_request(request: Request, earlier: Path) -> None:
    folder = earlier.parent
    kept = migrate("delineate_run", read_json(earlier), path=str(folder))
    # Compared as JSON, as the earlier request was stored. A setting that is newer than the run had
    # its default.
    given = as_read(vars(request))
    kept = as_read({one.name: one.default for one in fields(Request)[1:]}) | kept
    changed = [
        f"{key}: {kept.get(key)!r} before, {value!r} now"
        for key, value in given.items()
        if kept.get(key) != value
    ]
    if changed:
        raise UsageError(
            f"there is a run with other settings ({', '.join(changed)}); repeat the original "
            "command to continue it, or start from scratch with --overwrite",
            path=folder,
        )


def _inputs_of(request: Request, run: Path) -> set[str]:
    """The files that the training reads, as far as they are known without its layout: the data,
    the targets of links in it, and the files that its manifests name. The run's own files are not
    among them.
    """
    found = {request.data, *request.files}
    for given in tuple(found):
        for path in (Path(given), *_files_below(Path(given), run)):
            if path.is_symlink():
                found.add(os.path.realpath(path))
            if path.suffix == ".jsonl" and path.is_file():
                with contextlib.suppress(DelineateError):
                    found.update(files_of(Manifest.load(path)))
    return found


def _files_below(folder: Path, excluded: Path) -> Iterator[Path]:
    """All paths in a folder and its subfolders except ``excluded``; links to folders are followed
    once.
    """
    visited = {os.path.realpath(excluded)}
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
        yield from (Path(place, name) for name in (*folders, *names))
