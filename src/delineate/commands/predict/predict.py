"""Predict: segment scans, each on exactly its own grid.

Cases are segmented one at a time (``session``). A case that fails is listed, and the others are
done. No scan is replaced (see ``results`` for the output).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ...cohorts.discovery import channels
from ...cohorts.discovery.originals import originals
from ...cohorts.discovery.scans import Scans, collect
from ...core import atomic
from ...core.bundle import Bundle
from ...core.errors import DelineateError
from ...core.inputs import reading_at_most
from ...core.manifest import Manifest
from ...core.outputs import Originals
from ...core.progress import Progress, Say, silent, unsaid
from ...execution import local as batch
from ...execution.shards import Shard, claimed_by, turn
from ...extras import require_extra
from ...formats import apart
from ...inference.devices import device_for
from ..options import PredictOptions, reads_images
from . import archives, work_lists
from .archives import Fetched
from .crashes import Crashes
from .journal import Journal
from .objects import KINDS
from .refusals import refuse_unfit
from .results import refuse_edited, refuse_foreign, targets_of, write_record
from .session import engine_maker
from .starting import PredictionReport, head_of, opened, segmented


@reads_images
def predict(
    model: str | Path | Bundle,
    inputs: Sequence[str | Path],
    out: str | Path,
    options: PredictOptions = PredictOptions(),
    *,
    say: Say = unsaid,
    progress: Progress = silent,
) -> PredictionReport:
    """Segment every scan of ``inputs``.

    Args:
        model: a bundle or its file, next to which compiled networks are kept.
        inputs: files, DICOM folders, folders of cases, manifests, or studies and series of an
            archive (see ``formats.dicom.remote.address``).
        out: folder for the results, made if missing.
        options: see ``commands.options``.
        say: receives a sentence about everything that is skipped or cannot be written.
        progress: see ``core.progress``.

    Returns:
        An outcome for each scan, including scans that cannot be used.

    Raises:
        InputError, BundleError, UsageError: nothing can be done.
        OutputError: an output would replace a file that is read; nothing was done.
    """
    # Missing packages and devices are refused before anything is read.
    if work_lists.are_lists(inputs, out):
        return work_lists.predict_list(model, inputs, out, options, say=say, progress=progress)
    options = archives.asked(options, inputs)
    _ = options.work
    if any(KINDS[kind].by_highdicom for kind in options.objects):
        require_extra("dicom", "a DICOM object of a prediction")
    device_for(options.device, options.backend)
    bundle = opened(model, say)
    source = archives.fetched(inputs, out, bundle.plan, options, say, progress)
    if source.failures and not source.inputs:
        raise next(iter(source.failures.values()))
    crashes = Crashes.of(Path(out), options, say)
    with (
        reading_at_most(options.ram_bytes),
        apart.untrusted(bool(source.origins)),
        crashes.refused(),
    ):
        with crashes.noted():
            scans = _found(source, bundle, options, say)
        outcomes = predict_cases(
            bundle,
            scans.manifest,
            out,
            options,
            model="" if isinstance(model, Bundle) else model,
            kept=scans.originals,
            unusable={**scans.failures, **source.failures},
            source=source,
            say=say,
            progress=progress,
        )
    return PredictionReport(Path(out), outcomes)


def _found(source: Fetched, bundle: Bundle, options: PredictOptions, say: Say) -> Scans:
    scans = gather(source.inputs, bundle, options.only, options.channels, options.fix_series)
    for note in scans.notes:
        say(note)
    return scans


def predict_cases(
    bundle: Bundle,
    manifest: Manifest,
    out: str | Path,
    options: PredictOptions,
    *,
    model: str | Path = "",
    kept: Originals | None = None,
    unusable: Mapping[str, DelineateError] | None = None,
    source: Fetched | None = None,
    say: Say = unsaid,
    progress: Progress = silent,
) -> Sequence[batch.Outcome[dict[str, Any]]]:
    """Segment the cases of ``manifest`` with a bundle in memory; arguments as for ``predict``.

    Args:
        model: the bundle's file, next to which compiled networks are kept; "" keeps none.
        kept: files that must not be replaced; by default those of ``manifest``.
        unusable: scan -> why it cannot be used; recorded as failures.
        source: where scans came from, to which the results are sent.
    """
    refuse_unfit(options, bundle.plan)
    folder, shard = Path(out), Shard.parsed(options.shard)
    guarded = (originals([manifest]) if kept is None else kept).plus([model] if model else [])
    unusable = unusable or {}
    order = [*(case.id for case in manifest), *unusable]
    manifest = _of_shard(manifest, shard, say)
    guarded.refuse(targets_of(manifest, folder, options, bundle.plan))
    refuse_foreign(manifest, folder, options, bundle.plan)
    device = device_for(options.device, options.backend)
    head = head_of(bundle, device, options, model, source)
    journal = Journal(folder, bundle.id, options, say)
    finished = _finished(manifest, journal, options, say, progress)
    left = replace(manifest, cases=tuple(c for c in manifest if c.id not in finished))
    # What the engine refuses is refused before anything is written; the rest of its work is done
    # while the first scan is read.
    make = engine_maker(bundle, device, options, model) if left.cases else None
    record = partial(write_record, folder, bundle, head, journal=journal, order=order)
    with guarded.kept(), claimed_by(atomic.make_folder(folder), shard) as claim:
        # From now on the folder is known as ours, even if this call is killed.
        with turn(folder, shard):
            record([], writing=[case.id for case in left])
        if make is not None:
            finished |= segmented(
                bundle, make, model, left, folder, options, journal, claim, say, progress
            )
        outcomes = [finished[case.id] for case in manifest]
        if source is not None and (options.send or options.send_to):
            outcomes = archives.sent(outcomes, manifest, folder, options, source, journal, progress)
        outcomes += [journal.failed(*one) for one in unusable.items() if shard.has(one[0])]
        journal.compact()
        with turn(folder, shard):
            record(outcomes)
    return outcomes


def _of_shard(manifest: Manifest, shard: Shard, say: Say) -> Manifest:
    """The cases of a shard, with a sentence about their number."""
    if shard.is_whole:
        return manifest
    found = manifest.only(case for case in manifest if shard.has(case.id))
    say(f"{shard}: {len(found)} of {len(manifest)} scans")
    return found


def _finished(
    manifest: Manifest, journal: Journal, options: PredictOptions, say: Say, progress: Progress
) -> dict[str, batch.Outcome[dict[str, Any]]]:
    """Case -> outcome, of the cases whose results are complete, with a sentence about them.

    Raises:
        OutputError: a result was edited and would be replaced.
    """
    found = {}
    for number, case in enumerate(manifest if journal.entries else (), start=1):
        # Hash the results first: they are smaller than the scan.
        if changed := journal.changed(case):
            if not options.overwrite and not journal.died_at(case):
                refuse_edited(changed)
        elif not options.again and (entry := journal.finished(case)) is not None:
            found[case.id] = batch.Outcome(case.id, entry, None, 0.0)
        progress("check results", number, len(manifest), case.id)
    if found:
        say(
            f"{len(found)} of {len(manifest)} scans have their results already; --again segments "
            "them again"
        )
    return found


def gather(
    inputs: Sequence[str | Path],
    bundle: Bundle,
    only: str | None = None,
    stated: Mapping[str, str] | None = None,
    fix_series: str | None = None,
) -> Scans:
    """All scans of ``inputs`` with the model's channels; arguments and errors as for
    ``cohorts.discovery.scans.collect``.

    A scan that lacks some of several channels is kept, with ``ABSENT`` in their place. Channels
    are read in the unit of the model's.
    """
    wanted = [c.name for c in bundle.plan.channels]
    scans = collect(
        inputs,
        wanted,
        bundle.labels,
        numbered=_numbered(bundle.card),
        only=only,
        stated=stated,
        fix_series=fix_series,
    )
    units = [c.unit for c in bundle.plan.channels]
    return replace(scans, manifest=scans.manifest.in_units(units))


def _numbered(card: Mapping[str, Any]) -> channels.Numbered:
    """How the training of a model identified channels without names; older cards give the layout
    instead.
    """
    if "channels_numbered" in card:
        return card["channels_numbered"]  # type: ignore[no-any-return]
    if card.get("imported") or card.get("layout") == "nnunet-raw":
        return "files"
    return "one file" if card.get("layout") == "decathlon" else ""
