"""Prepare: preprocess every case with truth into the store, once.

A case that is complete in the store is not touched, so a killed preparation continues where it
stopped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from ...cohorts.reading import read_image, read_label
from ...core.inputs import read_json_if_any
from ...core.labels import IGNORED, LabelSet
from ...core.machine import available_bytes
from ...core.manifest import Case, Manifest
from ...core.plan import Plan
from ...core.progress import Progress, silent
from ...core.store import Store, StoredCase
from ...core.volume import Volume
from ...execution.executor import LOCALLY, Work
from ...execution.local import Outcome
from ...trust.plausibility import CaseMeasures, Ranges, measure, ranges_of, sample

# Prepared cases are held in memory if they need at most this share of what is free.
RAM_SHARE = 0.35
VIEWS_CHUNK = (32, 32, 32)  # views slice along every axis: a chunk as wide along each
MEASURES = "measures"  # of a case, in its notes
OBLIQUE_DEPTH = 8  # slices in a chunk where tilted planes cross several


def opened(
    store: Store, plan: Plan, ids: Sequence[str], view: str = "", copies: int = 1
) -> list[StoredCase]:
    """The prepared cases as ``view`` sees them, in memory if all of them fit.

    Args:
        plan: of the run, which has the views.
        copies: processes of this machine that each hold them.
    """
    fits = copies * store.nbytes(ids) < RAM_SHARE * available_bytes()
    found = [store.open(case).loaded() if fits else store.open(case) for case in ids]
    if not view:
        return found
    seen, labels = plan.named_views()[view], plan.labels
    table = labels.merge_table() if seen.merge_sides else np.arange(len(labels) + 1)
    return [case.seen(seen.order, table) for case in found]


def prepare_cohort(
    manifest: Manifest,
    plan: Plan,
    store: Store,
    *,
    work: Work = LOCALLY,
    workers: int | None = 1,
    progress: Progress = silent,
) -> Sequence[Outcome[None]]:
    """Prepare every case of ``manifest`` that has truth and is in the shard of ``work``.

    Args:
        work: where cases are prepared; all machines must see the store.
        workers: processes of this machine; 1 works in this one, whose arithmetic uses every core
            already.

    Returns:
        One outcome a case, in order; those with an error are not in the store.
    """
    cases = [case for case in manifest.with_truth() if work.shard.has(case.id)]
    return work.run(
        partial(prepare_case, manifest=manifest, plan=plan, store=store),
        cases,
        names=[c.id for c in cases],
        workers=workers if work.is_local else None,
        whole_node=True,
        stage="prepare",
        progress=progress,
    )


def prepare_case(case: Case, manifest: Manifest, plan: Plan, store: Store) -> None:
    """Read, prepare and store one case; does nothing where it is stored already."""
    from ...preprocessing.prepare import prepare, prepare_label

    if store.has(case.id):
        return
    image = read_image(case, manifest)
    label = read_label(case, manifest, image.grid)
    measures = _measures(image, label, manifest.labels)
    array, record = prepare(image, plan)
    count = plan.codes
    table = dict(enumerate(range(count))) if plan.labels.overlapping else plan.labels.compact()
    if manifest.mapping.ignore:
        # The number after the last class, or code, marks ignored voxels.
        table, count = table | {IGNORED: count}, count + 1
    classes = prepare_label(label, record, table)
    seed = int.from_bytes(hashlib.sha256(case.id.encode()).digest()[:4], "little")
    store.add(
        case.id,
        array.numpy(),
        classes,
        count,
        chunk=_chunk(plan),
        ignored=bool(manifest.mapping.ignore),
        seed=seed,
        spacing_mm=record.prepared.spacing_mm,
        notes={MEASURES: measures.to_json()},
    )


def _measures(image: Volume, label: Volume, labels: LabelSet) -> CaseMeasures:
    """What predictions will be compared with; ignored voxels are left out."""
    known = label.with_array(np.where(label.array == IGNORED, 0, label.array))
    return measure(sample(image), known, labels)


def ranges_in(store: Store, cases: Sequence[str]) -> Ranges:
    """The ranges of the stored cases; those of earlier versions may have no measures."""
    found = [_measures_in(store, case) for case in cases]
    return ranges_of([CaseMeasures.from_json(one) for one in found if one is not None])


def _measures_in(store: Store, case: str) -> dict[str, Any] | None:
    # Earlier versions had a file next to the arrays.
    earlier = read_json_if_any(store.folder / case / f"{MEASURES}.json")
    found: dict[str, Any] | None = store.notes(case).get(MEASURES, earlier)
    return found


def _chunk(plan: Plan) -> tuple[int, int, int]:
    """What is read at once: a patch; more even boxes where slices are cut in several directions."""
    if plan.views:
        return VIEWS_CHUNK
    i, j, k = plan.patch
    return (i, j, max(k, OBLIQUE_DEPTH)) if plan.augmentation.oblique_p else plan.patch
