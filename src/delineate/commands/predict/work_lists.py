"""Predict from a work list (``cohorts.work_list``), of which at most some thousand cases are in
memory. The journal is a ledger, and ``predictions.json`` has the head of the record and no cases.

Cases with all files on this machine are segmented as those of a folder are. A case is done again if
the list states another source, the model or options that change a mask differ, a file of its scan
has another size or time of change, an object another length or tag, or its results have another
size. Their bytes are read only then.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from ...cohorts import work_list
from ...cohorts.discovery.dicom_rules import DicomRules
from ...cohorts.discovery.originals import originals
from ...cohorts.work_list import Row, is_work_list
from ...core import atomic
from ...core.bundle import Bundle
from ...core.errors import DelineateError, OutputError, UsageError
from ...core.inputs import read_json_if_any, reading_at_most, sha256_of
from ...core.manifest import ABSENT, Case, Manifest, Source
from ...core.outputs import Originals
from ...core.prediction import RECORD
from ...core.progress import Progress, Say, silent, unsaid
from ...execution import many
from ...execution.claims import Claim
from ...execution.ledger import NAME, Ledger, hashed
from ...execution.local import Outcome
from ...execution.shards import Shard, claimed_by, turn
from ...formats import stores
from ...formats.dicom.remote import is_remote
from ...formats.files import companions, place_of
from ...inference.devices import device_for
from ..options import PredictOptions
from .elsewhere import SegmentCase, run_elsewhere
from .journal import digests_of, made_by
from .refusals import refuse_unfit
from .results import of_cases, refuse_edited, write_record
from .session import engine_maker
from .starting import ListReport, head_of, opened, segmented
from .stored import StoredCase, StoredRecords, objects_of

ASKED_AT_ONCE = 16  # states of objects
ALONE = (".nii.gz", ".nii", ".nrrd", ".mha")  # files without companions


def are_lists(inputs: Sequence[str | Path], out: str | Path) -> bool:
    """Whether the inputs are work lists.

    Raises:
        UsageError: some of them are, and others not; or none is, and the output is a URL; or that
            cannot be written.
    """
    lists = [one for one in inputs if not is_remote(one) and is_work_list(one)]
    if lists and len(lists) < len(inputs):
        other = next(one for one in inputs if one not in lists)
        raise UsageError(
            f"work lists, patterns and URLs exclude other inputs; give {other} in a call of its own"
        )
    if str(out).lower().startswith(("http://", "https://")):
        raise UsageError(f"{stores.shown(str(out))}: places of https:// can only be read")
    if not lists and stores.is_url(out):
        raise UsageError("results go to a store only from a work list, pattern or URL")
    return bool(lists)


def predict_list(
    model: str | Path | Bundle,
    inputs: Sequence[str | Path],
    out: str | Path,
    options: PredictOptions,
    *,
    say: Say = unsaid,
    progress: Progress = silent,
) -> ListReport:
    """Segment every scan of work lists; arguments and errors as for ``predict``."""
    _ = options.work  # refused before anything is read
    _refuse_options(options)
    bundle = opened(model, say)
    refuse_unfit(options, bundle.plan)
    device = device_for(options.device, options.backend)
    shard, url = Shard.parsed(options.shard), stores.local(out) if stores.is_url(out) else ""
    path = "" if isinstance(model, Bundle) else model
    head = head_of(bundle, device, options, path, None)
    counts = [work_list.count_of(one) for one in inputs]
    total = None if None in counts else sum(count for count in counts if count is not None)
    head |= {"cases_in": NAME, **({} if total is None else {"listed": total})}
    guarded = Originals([path] if path else []).plus(
        [one for place in inputs if os.path.isfile(one := stores.local(place))]
    )
    with contextlib.ExitStack() as stack:
        stored = stack.enter_context(StoredRecords(url, shard)) if url else None
        if stored is not None:
            stored.fetch()
        folder = Path(stores.local(out)) if stored is None else stored.folder
        _refuse_other_records(folder)
        guarded.refuse([folder / RECORD, folder / shard.named(NAME)])
        stack.enter_context(guarded.kept())
        claim = stack.enter_context(claimed_by(atomic.make_folder(folder), shard))
        ledger = Ledger(folder, shard, say, stored.each if stored else _nothing)
        record = partial(_record, folder, shard, partial(write_record, folder, bundle, head, []))
        record(stored)
        with reading_at_most(options.ram_bytes), ledger:
            job = SegmentList(bundle, path, folder, options, ledger, claim, say, url)
            rows = _Counted(_all_rows(inputs, job.channels))
            stack.callback(job.close)
            more: dict[str, Any] = {"again": options.again, "total": total, "portion": job.portion}
            tally = many.run(rows, job, ledger, shard, **more, progress=progress)
        head["listed"] = rows.count  # without lines that are empty
        claim.confirm()
        ledger.compact()
        record(None)
        if stored is not None:
            stored.finish()
    if tally.kept:
        say(
            f"{tally.kept} of {tally.count} scans have their results already; --again segments "
            "them again"
        )
    first = tuple(Outcome[dict[str, Any]](name, None, error, 0.0) for name, error in tally.first)
    return ListReport(Path(out), first, tally.done, tally.kept, tally.failed, str(out))


def _nothing() -> None:
    """After a line of a journal on this machine."""


def _record(
    folder: Path, shard: Shard, write: Callable[[], None], stored: StoredRecords | None
) -> None:
    with turn(folder, shard):
        write()
    if stored is not None:
        stored.put_record()


def _all_rows(
    inputs: Sequence[str | Path], channels: Sequence[str]
) -> Iterator[Row | work_list.Unusable]:
    for one in inputs:
        yield from work_list.rows(one, channels)


class _Counted:
    """Rows, and how many have been read."""

    def __init__(self, rows: Iterable[Row | work_list.Unusable]):
        self._rows, self.count = rows, 0

    def __iter__(self) -> Iterator[Row | work_list.Unusable]:
        for row in self._rows:
            self.count += 1
            yield row


def _refuse_options(options: PredictOptions) -> None:
    """Raises UsageError: an option that is not for work lists."""
    refused = {
        "--send": options.send,
        "--send-to": options.send_to,
        "--channels": options.channels,
        "--only": options.only,
    }
    if given := [name for name, value in refused.items() if value]:
        raise UsageError(f"{given[0]} is not for work lists")


def _refuse_other_records(folder: Path) -> None:
    """Raises OutputError: the results of a call without a work list are there."""
    path = folder / RECORD
    found = read_json_if_any(path, error=OutputError)
    if found is not None and not (isinstance(found, dict) and "cases_in" in found):
        raise OutputError(
            "is no record of a work list; results of work lists have a folder of their own: choose "
            "another one",
            path=path,
        )


class SegmentList:
    """The job of a work list (``execution.many.Job``).

    Args:
        bundle, model, out, options: as for ``predict``.
        ledger: receives a line for each case.
        claim: on ``out``.
        say: as for ``predict``.
        url: of the results, if they are in a store; then ``out`` has the records only.
    """

    def __init__(
        self,
        bundle: Bundle,
        model: str | Path,
        out: Path,
        options: PredictOptions,
        ledger: Ledger,
        claim: Claim,
        say: Say,
        url: str = "",
    ):
        self._bundle, self._model, self._out, self._options = bundle, model, out, options
        self._ledger, self._claim, self._say, self._url = ledger, claim, say, url
        self.channels = tuple(c.name for c in bundle.plan.channels)
        self._units = [c.unit for c in bundle.plan.channels]
        self._rules = DicomRules.of(options.fix_series, None)
        self._made_by = made_by(bundle.id, options)
        device = device_for(options.device, options.backend)
        self._make = engine_maker(bundle, device, options, model)
        self._far: StoredCase | None = None
        self.portion = many.PORTION if options.work.is_local else many.LARGE_PORTION
        self._cluster: contextlib.ExitStack | None = None

    def close(self) -> None:
        """Leave the cluster, which all portions use."""
        if self._cluster is not None:
            self._cluster.close()

    def _manifest(self, cases: Iterable[Case]) -> Manifest:
        ruled = tuple(map(self._rules.with_images, cases))
        return Manifest(ruled, self.channels, self._bundle.labels).in_units(self._units)

    def _targets(self, case: Case) -> list[Path]:
        alone = Manifest((case,), self.channels)
        return [*of_cases(alone, self._out, self._options, self._bundle.plan)]

    def states(self, rows: Sequence[Row]) -> list[int]:
        """See ``many.Job``; files that are missing have a state too, and fail later."""
        remote = any(_is_far(image) for row in rows for image in row.case.images)
        with ThreadPoolExecutor(ASKED_AT_ONCE) if remote else contextlib.nullcontext() as pool:
            found = map(self._state, rows) if pool is None else pool.map(self._state, rows)
            return [*found]

    def _state(self, row: Row) -> int:
        images = [[image.to_json(), self._state_of(image)] for image in row.case.images]
        stated = [row.sha256, row.nbytes, dict(row.about)]
        return hashed(json.dumps([row.name, self._made_by, images, stated], default=str))

    def _state_of(self, image: Source) -> Any:
        return objects_of(image, self._options) if is_remote(image.path) else state_of(image)

    def complete(self, found: Sequence[tuple[Row, int]]) -> list[bool]:
        """See ``many.Job``."""
        if not self._url:
            return [_bytes_of(self._targets(row.case)) == nbytes for row, nbytes in found]
        with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
            stored = pool.map(lambda one: self._bytes_stored(one[0].case), found)
            return [size == nbytes for size, (_, nbytes) in zip(stored, found, strict=True)]

    def _bytes_stored(self, case: Case) -> int:
        names = (path.relative_to(self._out).as_posix() for path in self._targets(case))
        return sum(size_of(stores.joined(self._url, name)) for name in names)

    def refuse(self, row: Row) -> None:
        """See ``many.Job``."""
        existing = [path for path in self._targets(row.case) if path.exists()]
        if self._options.overwrite or not existing or self._ledger.begun(row.name):
            return
        line = self._ledger.line(row.name)
        if line is None:
            raise OutputError(
                "exists already, and no line of the journal names it as a result of predict; "
                "choose another folder, or replace it with --overwrite",
                path=existing[0],
            )
        files: Mapping[str, str] = line["files"]
        names = {path: path.relative_to(self._out).as_posix() for path in existing}
        refuse_edited(p for p, name in names.items() if files.get(name, "") != sha256_of(p))

    def run(self, rows: Sequence[tuple[Row, int]]) -> list[tuple[str, DelineateError | None]]:
        """See ``many.Job``."""
        if self._cluster is None:
            self._cluster = contextlib.ExitStack()
            self._cluster.enter_context(self._options.work.engine.connected())
        journal: Any = _Lines(self._ledger, self._out, rows)
        near = [row.case for row, _ in rows if not self._is_stored(row)]
        far = [row for row, _ in rows if self._is_stored(row)]
        found = self._run_near(near, journal) if near else []
        return found + (self._run_far(far, journal) if far else [])

    def _is_stored(self, row: Row) -> bool:
        is_stated = row.sha256 or row.nbytes is not None
        return bool(self._url or is_stated or any(map(_is_far, row.case.images)))

    def _run_far(self, rows: list[Row], journal: Any) -> list[tuple[str, DelineateError | None]]:
        header = Manifest((), self.channels, self._bundle.labels)
        segment = SegmentCase(self._bundle, self._model, header, self._out, self._options)
        function = self._far = self._far or StoredCase(segment, self._url, self._rules, self._units)
        names = [row.name for row in rows]
        self._ledger.begin(names, sent=True)
        outcomes = run_elsewhere(
            self._options.work,
            function,
            rows,
            names,
            journal,
            self._claim,
            self._say,
            silent,
        )
        return [(outcome.name, outcome.error) for outcome in outcomes]

    def _run_near(self, cases: list[Case], journal: Any) -> list[tuple[str, DelineateError | None]]:
        manifest = self._manifest(cases)
        if not self._options.work.is_here:
            self._ledger.begin([case.id for case in cases], sent=True)
        with originals([manifest]).kept():
            outcomes = segmented(
                self._bundle,
                self._make,
                self._model,
                manifest,
                self._out,
                self._options,
                journal,
                self._claim,
                self._say,
                silent,
            )
        return [(name, outcome.error) for name, outcome in outcomes.items()]


class _Lines:
    """The ledger in place of a ``Journal``, for the cases of a portion."""

    def __init__(self, ledger: Ledger, out: Path, rows: Sequence[tuple[Row, int]]):
        self._ledger, self._out = ledger, out
        self._rows = {row.name: (row, state) for row, state in rows}

    def died_at(self, case: Case) -> bool:
        return self._ledger.died_at(case.id)

    def begin(self, case: Case) -> None:
        self._ledger.begin([case.id])

    def add(self, case: str, entry: dict[str, Any], files: Iterable[Path]) -> None:
        self.put(case, entry, digests_of(self._out, files))

    def put(
        self,
        case: str,
        entry: dict[str, Any],
        files: Mapping[str, str],
        nbytes: int | None = None,
    ) -> None:
        row, state = self._rows[case]
        # What the list states, before what the header of the scan does.
        stated = dict(entry.get("about", {})) | dict(row.about)
        about = {"about": stated} if stated else {}
        if nbytes is None:
            nbytes = _bytes_of(self._out / name for name in files)
        self._ledger.put(case, state, {**entry, **about}, files, nbytes)

    def failed(self, case: str, error: DelineateError, seconds: float = 0.0) -> None:
        self._ledger.fail(case, str(error))


def _is_far(image: Source) -> bool:
    """Whether it is in a store or an archive."""
    return stores.is_url(image.path) or is_remote(image.path)


def state_of(image: Source) -> Any:
    """What tells whether a source has changed, without reading it: the names, sizes and times of
    change of its files, or the length and tag of an object; None if there is none.
    """
    if image == ABSENT:
        return None
    if stores.is_url(image.path):
        try:
            found = stores.state_of(image.path)
        except DelineateError:
            return None  # a "folder", or the case will say why
        return [found.nbytes, found.tag]
    if image.path.lower().endswith(ALONE) and (known := _size_and_time(image.path)):
        return [[image.path, *known]]
    place = place_of(image.path)
    if place.is_dir():
        paths = [Path(folder, name) for folder, _, names in os.walk(place) for name in names]
    else:
        paths = [place, *companions(place)]
    return [[str(path), *_size_and_time(path)] for path in sorted(paths)]


def size_of(url: str) -> int:
    """The bytes of an object; 0 if there is none."""
    try:
        return stores.state_of(url).nbytes or 0
    except DelineateError:
        return 0


def _size_and_time(path: str | Path) -> list[int]:
    try:
        found = os.stat(path)
    except OSError:
        return []
    return [found.st_size, found.st_mtime_ns]


def _bytes_of(paths: Iterable[Path]) -> int:
    """Of all files that exist."""
    return sum(size[0] for path in paths if (size := _size_and_time(path)))


__all__ = ["SegmentList", "are_lists", "predict_list", "state_of"]
