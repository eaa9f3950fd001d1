"""Plan: the choices of a training, derived from a cohort and this machine, without training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..cohorts.discovery.layouts import discover
from ..cohorts.discovery.originals import originals
from ..cohorts.splitting import is_ratio, read_split
from ..core import atomic
from ..core.errors import DelineateError, InputError
from ..core.manifest import Manifest
from ..core.outputs import refuse_foreign
from ..core.plan import Plan
from ..core.progress import Progress, silent
from ..extend.registers import RECIPES
from ..inference.devices import choose_device
from ..planning import rules
from ..planning.changes import with_changes
from .options import PlanOptions, found_by, reads_images


@reads_images
def plan(
    data: str | Path | Manifest,
    out: str | Path | None = None,
    options: PlanOptions = PlanOptions(),
    *,
    failed: Callable[[DelineateError], object] | None = None,
    progress: Progress = silent,
) -> Plan:
    """Derive a plan, and write it to ``out`` to be edited and passed to ``train --plan``.

    Args:
        data: a folder of scans with masks, a manifest, or a cohort in memory.
        out: a JSON file; None writes nothing.
        options: see ``commands.options``.
        failed: receives the error of each case that cannot be used, which is left out; None raises
            the first one that cannot be read.
        progress: see ``core.progress``.

    Raises:
        InputError, LayoutError, LabelError, UsageError: no plan can be made for ``data``.
        OutputError: ``out`` cannot be written, or is a file that is read.
    """
    choose_device(options.device)  # refused before the cohort is read
    recipe = None if options.recipe is None else RECIPES[options.recipe]
    manifest = data if isinstance(data, Manifest) else _found(data, options, failed)
    split = str(options.split or "")
    if split:
        manifest = read_split(split).divide(manifest, options.seed)
    given = [options.description, options.labels]
    given += [split] if split and not is_ratio(split) else []
    if not isinstance(data, Manifest) and Path(data).is_file():
        given.append(data)
    if out is not None:
        originals([manifest], given).refuse([out])
        refuse_foreign(Path(out).parent, [out], options.overwrite)
    if recipe is not None:
        manifest = recipe.adapt(manifest, options.labels is not None)
    learning = manifest.to_learn_from()
    made = rules.plan_with(
        recipe,
        rules.fingerprint(learning, progress=progress, failed=failed),
        learning,
        options.device,
        budget_s=options.budget_s,
        epochs=options.epochs,
        seed=options.seed,
        dims=options.dims,
    )
    made = with_changes(made, options.changes)
    if out is not None:
        with atomic.recording(Path(out).parent, [out], options.overwrite):
            atomic.write_text(out, made.to_json())
    return made


def _found(
    data: str | Path, options: PlanOptions, failed: Callable[[DelineateError], object] | None
) -> Manifest:
    found = discover(data, **found_by(options))
    for finding in found.findings:
        if failed is not None and finding.severity == "error":
            failed(InputError(finding.message, case=finding.case or None))
    return found.manifest
