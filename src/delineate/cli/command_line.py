"""The command line: one function a verb, whose options are the step's arguments.

Exit codes: 0 done; 1 some cases of a batch failed (the rest are done, the failures are listed); 2
unusable input or usage. A user's mistake gives one sentence, never a traceback. Steps are imported
when their verb runs, so that ``--help`` is quick.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from ..core.progress import Progress

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="From a folder of scans with masks to a validated segmentation model, and from a scan "
    "to its structures.",
)

DATA = typer.Argument(
    help="A folder of scans (with masks), a manifest.jsonl, or one scan.", metavar="DATA"
)
LAYOUT = typer.Option(help="Name of the layout, where several fit (see docs/layouts.md).")
DESCRIPTION = typer.Option(
    help="YAML file that describes a layout of your own (draft one with `check --draft`)."
)
LABELS = typer.Option(help="YAML file that names, merges or selects structures.")
PATIENT = typer.Option(
    help="Regular expression with one group that finds the patient in a case's id."
)
RECIPE = typer.Option(
    help="A known system to reproduce: liver-ct-unet3d, brain-quicknat, liver-mr-unet2d, "
    "liver-ct-unet2d or brats-vnet."
)
DEVICE = typer.Option(help="auto, cpu, cuda or cuda:N.")


def _say_version(asked: bool) -> None:
    if asked:
        from .. import __version__

        typer.echo(f"delineate {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_say_version, is_eager=True, help="Say which version this is."
        ),
    ] = False,
) -> None:
    """Global options."""


@app.command()
def check(
    data: Annotated[Path, DATA],
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            help="Folder for manifest.jsonl and findings.json; without it NAME.check/ in the "
            "current folder.",
        ),
    ] = None,
    fix: Annotated[
        Path | None,
        typer.Option(
            help="Write mended copies of the cohort here, with changes.json; originals are never "
            "touched."
        ),
    ] = None,
    draft: Annotated[
        Path | None,
        typer.Option(
            help="Write a first YAML description of this folder here, and do nothing else."
        ),
    ] = None,
    layout: Annotated[str | None, LAYOUT] = None,
    description: Annotated[Path | None, DESCRIPTION] = None,
    labels: Annotated[Path | None, LABELS] = None,
    patient: Annotated[str | None, PATIENT] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes; decided by the machine where not given.")
    ] = None,
) -> None:
    """Say what is in DATA, what is wrong with it, and what can be mended.

    Example: `delineate check hippocampus/ -o checked/`
    """
    from ..commands import check as step

    if draft is not None:
        from ..cohorts.discovery.description import draft as write_draft
        from ..cohorts.discovery.originals import originals_in
        from ..core import atomic

        originals_in(data).refuse([draft])
        atomic.write_text(draft, write_draft(data))
        typer.echo(f"a first description is in {draft}; edit it and pass it with --description")
        return
    target = out or Path(f"{data.resolve().name}.check")
    with _bar() as tell:
        checked = step.check(
            data,
            out=target,
            layout=layout,
            description=description,
            labels=labels,
            patient=patient,
            fix=fix,
            workers=workers,
            progress=tell,
        )
    _print(step.table(checked))
    typer.echo(
        f"written: {target / 'manifest.jsonl'}, {target / 'findings.json'}"
        + (f"; mended copies in {fix}" if fix else "")
    )
    if any(f.severity == "error" for f in checked.findings):
        raise typer.Exit(1)


@app.command()
def plan(
    data: Annotated[Path, DATA],
    out: Annotated[Path, typer.Option("-o", "--out", help="Where to write the plan.")] = Path(
        "plan.json"
    ),
    budget: Annotated[
        str | None, typer.Option(help="Time for training, such as 10m or 2h.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Number of epochs instead of a budget.")
    ] = None,
    dims: Annotated[
        int | None, typer.Option(help="2 or 3 instead of what the rules choose.")
    ] = None,
    recipe: Annotated[str | None, RECIPE] = None,
    device: Annotated[str, DEVICE] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    layout: Annotated[str | None, LAYOUT] = None,
    description: Annotated[Path | None, DESCRIPTION] = None,
    labels: Annotated[Path | None, LABELS] = None,
    patient: Annotated[str | None, PATIENT] = None,
) -> None:
    """Derive a plan from DATA and this machine, with the reason for each choice; edit it and pass
    it to `train --plan`.
    """
    from ..cohorts.discovery.layouts import find
    from ..cohorts.discovery.originals import originals
    from ..core import atomic
    from ..inference.devices import choose_device
    from ..planning import rules as step
    from ..planning.recipes import find_recipe

    choose_device(device)  # refused before the cohort is read
    chosen = None if recipe is None else find_recipe(recipe)
    with _bar() as tell:
        manifest = find(
            data, layout=layout, description=description, labels=labels, patient=patient
        )
        originals([manifest], [data if data.is_file() else None, description, labels]).refuse([out])
        if chosen is not None:
            manifest = chosen.adapt(manifest, labels is not None)
        found = step.fingerprint(manifest, progress=tell)
    seconds = None if budget is None else parse_duration(budget)
    made = step.plan_with(
        chosen, found, manifest, device, budget_s=seconds, epochs=epochs, seed=seed, dims=dims
    )
    atomic.write_text(out, made.to_json())
    for key, reason in made.reasons.items():
        typer.echo(f"{key}: {reason}")
    typer.echo(f"written: {out}")


@app.command()
def train(
    data: Annotated[Path, DATA],
    out: Annotated[
        Path,
        typer.Option(
            "-o",
            "--out",
            help="The model to write, one file; the run's folder is this name + .run.",
            metavar="MODEL",
        ),
    ],
    budget: Annotated[
        str | None,
        typer.Option(
            help="Time for everything, such as 10m or 2h: network, patch and schedule are fitted "
            "to it."
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Number of epochs instead of a budget (bit-exact when resumed); 1000 where "
            "neither is given."
        ),
    ] = None,
    plan: Annotated[
        Path | None, typer.Option(help="A plan to follow instead of a derived one.")
    ] = None,
    recipe: Annotated[str | None, RECIPE] = None,
    fold: Annotated[int | None, typer.Option(help="Train this one fold (from 0).")] = None,
    folds: Annotated[
        int | None,
        typer.Option(
            help="Number of folds, by patient; all are trained and averaged unless --fold picks "
            "one."
        ),
    ] = None,
    split: Annotated[
        Path | None,
        typer.Option(
            help='JSON {"train": [...], "val": [...], "test": [...]} of case or patient ids.'
        ),
    ] = None,
    init: Annotated[
        Path | None, typer.Option(help="A model whose weights to start from, where they fit.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    device: Annotated[str, DEVICE] = "auto",
    dims: Annotated[
        int | None, typer.Option(help="2 or 3 instead of what the rules choose.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start anew where a run or model stands already.")
    ] = False,
    extend: Annotated[
        str | None,
        typer.Option(
            help="Continue a finished run for this long, such as 30m (repeat the original command "
            "with this option)."
        ),
    ] = None,
    tensorboard: Annotated[
        bool,
        typer.Option("--tensorboard", help="Also write event files, MODEL.run/fold_K/tensorboard."),
    ] = False,
    layout: Annotated[str | None, LAYOUT] = None,
    description: Annotated[Path | None, DESCRIPTION] = None,
    labels: Annotated[Path | None, LABELS] = None,
    patient: Annotated[str | None, PATIENT] = None,
) -> None:
    """Check, plan, prepare, train, evaluate, bundle and report.

    The same command after a kill goes on where it stopped. A valid model is on disk from the first
    validation on. With --extend a run that has ended goes on from there.

    Example: `delineate train hippocampus/ -o hippocampus.model --budget 10m`
    """
    from ..commands.train import train as step
    from ..commands.train.request import Request
    from ..core.errors import UsageError
    from ..planning.recipes import find_recipe

    if recipe is not None and (plan is not None or dims is not None):
        raise UsageError("--recipe is a plan: --plan and --dims exclude it")
    chosen = None if recipe is None else find_recipe(recipe)
    request = Request(
        data=os.path.abspath(data),
        budget_s=None if budget is None else parse_duration(budget),
        epochs=epochs,
        plan=_text(plan),
        recipe=recipe or "",
        fold=fold,
        folds=folds,
        split=_text(split),
        init=_text(init),
        seed=seed,
        device=device,
        layout=layout or "",
        description=_text(description),
        labels=_text(labels),
        patient=patient or "",
        dims=dims,
    )
    with _bar() as tell:
        extend_s = None if extend is None else parse_duration(extend)
        done = step.train(
            request,
            out,
            recipe=chosen,
            overwrite=overwrite,
            extend_s=extend_s,
            tensorboard=tensorboard,
            say=_say,
            progress=tell,
        )
    _report_failures(done.failures)


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="The model.", metavar="MODEL")],
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Folder for CASE.nii.gz and predictions.json.")
    ],
    inputs: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Files, DICOM folders, folders of cases, or manifests; none where --channels "
            "names files.",
            metavar="[INPUT...]",
        ),
    ] = None,
    channels: Annotated[
        list[str] | None,
        typer.Option(
            "--channels",
            help="Which file is which channel of the model, such as flair=a.nii.gz,t1=b.nii.gz; "
            "with INPUT what it calls each, such as flair=t2f.",
            metavar="NAME=FILE,...",
        ),
    ] = None,
    device: Annotated[str, DEVICE] = "auto",
    mirror: Annotated[
        bool | None,
        typer.Option(
            "--mirror/--no-mirror",
            help="Average over mirror images: slower, often a little better.",
        ),
    ] = None,
    form: Annotated[
        str, typer.Option("--format", help="nii.gz, nii, nrrd, mha or png.")
    ] = "nii.gz",
    dicom_seg: Annotated[
        bool, typer.Option("--dicom-seg", help="Also write a DICOM SEG of each DICOM series.")
    ] = False,
    only: Annotated[
        str | None, typer.Option(help="train, val or test: that part of a cohort that is split.")
    ] = None,
    views: Annotated[
        str | None,
        typer.Option(
            help="Only these views of a model that averages several, such as axial or "
            "axial,coronal."
        ),
    ] = None,
    samples: Annotated[
        int,
        typer.Option(
            help="Monte-Carlo dropout samples of each case: how far they agree is written to "
            "OUT/uncertainty.csv.",
            metavar="N",
        ),
    ] = 0,
    seed: Annotated[int, typer.Option(help="Seed of the samples.")] = 0,
    allow_missing: Annotated[
        bool,
        typer.Option(
            "--allow-missing",
            help="Delineate scans that lack a channel too, with a model that was trained for it.",
        ),
    ] = False,
    backend: Annotated[
        str, typer.Option(help="auto (the fastest that is here), openvino or torch.")
    ] = "auto",
    precision: Annotated[
        str,
        typer.Option(
            help="auto (half where the device has units for it), float32, or int8 of a model "
            "that `quantise` made ready for it."
        ),
    ] = "auto",
    ram: Annotated[
        str | None,
        typer.Option(help="Peak RAM limit, such as 4G; a case that needs more is refused."),
    ] = None,
    vram: Annotated[str | None, typer.Option(help="Peak GPU memory limit.")] = None,
    skip_air: Annotated[
        bool,
        typer.Option(
            "--skip-air",
            help="Do not ask the network about what is over 3 cm outside the body of a CT.",
        ),
    ] = False,
    montage: Annotated[
        str | None,
        typer.Option(
            help="outlined or filled: also draw OUT/montages/CASE.png, three planes with the "
            "structures.",
            metavar="STYLE",
        ),
    ] = None,
    probabilities: Annotated[
        bool,
        typer.Option(
            "--probabilities",
            help="Also write OUT/probabilities/CASE.nii.gz, of each structure at each voxel; "
            "evaluate then tells how calibrated they are.",
        ),
    ] = False,
) -> None:
    """Delineate scans: OUT/CASE.nii.gz on exactly each scan's grid, and OUT/predictions.json with
    volumes in ml.

    Example: `delineate predict liver.model CT/ -o out/`
    """
    from ..commands import predict as step

    with _bar() as tell:
        done = step.predict(
            model,
            inputs or [],
            out,
            stated=parse_channels(channels or []),
            say=_say,
            device=device,
            mirror=mirror,
            form=form,
            dicom_seg=dicom_seg,
            only=only,
            views=()
            if views is None
            else tuple(name.strip().lower() for name in views.split(",") if name.strip()),
            samples=samples,
            seed=seed,
            allow_missing=allow_missing,
            backend=backend,
            precision=precision,
            ram_bytes=None if ram is None else parse_bytes(ram),
            vram_bytes=None if vram is None else parse_bytes(vram),
            skip_air=skip_air,
            montage=montage,
            probabilities=probabilities,
            progress=tell,
        )
    typer.echo(f"{len(done.written)} of {len(done.outcomes)} cases written to {done.out}")
    _report_failures([str(o.error) for o in done.failures])


@app.command()
def evaluate(
    prediction: Annotated[
        Path, typer.Argument(help="A file or folder of predicted masks.", metavar="PRED")
    ],
    truth: Annotated[
        Path,
        typer.Argument(help="A file, folder, manifest or cohort with the truth.", metavar="TRUTH"),
    ],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Folder for scores.csv, scores.json and slices.csv."),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Names of the values: YAML, JSON or CSV.")
    ] = None,
    like: Annotated[
        Path | None, typer.Option(help="A scan whose geometry folders of bare slices take.")
    ] = None,
    as_stack: Annotated[
        bool | None,
        typer.Option(
            "--as-stack/--as-images",
            help="Whether folders of slices are one volume each or one case a slice.",
        ),
    ] = None,
    surface: Annotated[
        str,
        typer.Option(
            help="Distances between surfels (pieces of surface, by area), voxels (of the edge), "
            "inner_voxels (less the scan's ends), or none."
        ),
    ] = "surfels",
    percentile: Annotated[
        str,
        typer.Option(
            help="HD95: directed (the larger of both directions) or pooled (both together)."
        ),
    ] = "directed",
    tolerance: Annotated[
        float, typer.Option(help="Tolerance of the surface Dice (NSD), in mm.", metavar="MM")
    ] = 2.0,
    also: Annotated[
        list[str] | None,
        typer.Option(
            help="lesions, centreline (clDice) or boundary (IoU near the contour) too; may be "
            "given several times."
        ),
    ] = None,
    pictures: Annotated[
        bool,
        typer.Option(
            "--pictures",
            help="Draw each case: source, truth, prediction side by side, OUT/pictures/CASE.png.",
        ),
    ] = False,
    images: Annotated[
        Path | None,
        typer.Option(
            help="The scans to draw, by name of the case, where TRUTH does not know them."
        ),
    ] = None,
    report: Annotated[
        bool,
        typer.Option(
            "--report/--no-report", help="Also write OUT/report.html, with pictures of three cases."
        ),
    ] = True,
    workers: Annotated[
        int | None, typer.Option(help="Processes; decided by the machine where not given.")
    ] = None,
) -> None:
    """Score predictions against truths, paired by name: per case, slice and patient, and pooled;
    and write a report.

    Example: `delineate evaluate out/ labels/ -o scores/ --pictures --images images/`
    """
    from ..commands import evaluate as step
    from ..evaluation.scoring import surface_choices
    from ..reporting.score_table import table

    with _bar() as tell:
        done = step.evaluate(
            prediction,
            truth,
            out,
            labels=labels,
            like=like,
            as_stack=as_stack,
            surfaces=surface_choices(surface, percentile, tolerance),
            also=also or (),
            pictures=pictures,
            montages=report and out is not None,
            images=images,
            workers=workers,
            progress=tell,
        )
    _print(table(done))
    if done.pictures:
        typer.echo(
            f"{len(done.pictures)} picture{'s' * (len(done.pictures) != 1)} in "
            f"{Path(done.pictures[0]).parent}"
        )
    if report and out is not None:
        from ..commands.report import report as write_report

        typer.echo(f"report: {write_report(out)}")
    _report_failures([f"{name}: {why}" for name, why in done.failures.items()])


@app.command()
def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="Two or more: runs (MODEL.run), models, evaluations, scores.json or scores.csv.",
            metavar="RUN RUN...",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option("-o", "--out", help="Folder for compare.csv, compare.json and the plots."),
    ],
    names: Annotated[
        str | None,
        typer.Option(
            help="Names of the runs, such as a,b,c; taken from the paths where not given."
        ),
    ] = None,
    metric: Annotated[str, typer.Option(help="A metric of the scores.")] = "dice",
    label: Annotated[
        list[str] | None,
        typer.Option(
            help="A structure to compare; may be given several times; all where not given."
        ),
    ] = None,
    per: Annotated[str, typer.Option(help="case, slice or patient.")] = "case",
    common: Annotated[
        bool,
        typer.Option(
            "--common",
            help="Use only cases present in every run (default: error if a run lacks a case).",
        ),
    ] = False,
) -> None:
    """Compare runs case by case: differences to the first with interval, test and effect, ranks,
    plots, and a plain sentence.

    Example: `delineate compare plain.model.run augmented.model.run -o compared/`
    """
    from ..commands import compare as step
    from ..reporting.compare_table import table

    done = step.compare(
        runs,
        out,
        names=None if names is None else names.split(","),
        metric=metric,
        labels=label or None,
        per=per,
        common=common,
    )
    _print(table(done))
    for sentence in done.sentences:
        typer.echo(sentence)
    typer.echo(
        f"written: compare.csv, compare.json, boxplot and differences (.png and .svg) in {out}"
    )


@app.command()
def convert(
    sources: Annotated[
        list[Path],
        typer.Argument(
            help="A file, a DICOM folder or a folder of slices; with --merge several.",
            metavar="INPUT...",
        ),
    ],
    target: Annotated[
        Path,
        typer.Argument(
            help="A file (.nii.gz, .nii, .nrrd, .mha, .png), or a folder for several files.",
            metavar="OUTPUT",
        ),
    ],
    spacing: Annotated[
        str | None, typer.Option(help="Spacing in mm of bare slices, such as 0.5,0.5,2.")
    ] = None,
    axes: Annotated[
        str | None,
        typer.Option(
            help="Where the stored axes really point to, such as ASL, for files that do not say "
            "(Analyze 7.5, slices)."
        ),
    ] = None,
    orientation: Annotated[
        str | None,
        typer.Option(help="Axis codes of the result, such as RAS; as stored where not given."),
    ] = None,
    series: Annotated[
        str | None, typer.Option(help="SeriesInstanceUID, where the folder holds several series.")
    ] = None,
    split_slices: Annotated[
        int | None,
        typer.Option(
            help="Cut the volume into NAME_00, NAME_01 ... of this many slices; the last may be "
            "shorter."
        ),
    ] = None,
    merge: Annotated[
        bool,
        typer.Option(
            "--merge",
            help="Put consecutive volumes (files, or a folder of them) together by where they "
            "stand.",
        ),
    ] = False,
) -> None:
    """Convert one scan to another format; a folder with several DICOM series gives one file a
    series.

    Examples: `delineate convert DICOM/ scan.nii.gz`, `delineate convert DICOM/ parts/
    --split-slices 64`, `delineate convert parts/ scan.nii.gz --merge`
    """
    from ..commands import convert as step
    from ..core.errors import UsageError

    if merge and any(
        value is not None for value in (spacing, axes, orientation, series, split_slices)
    ):
        raise UsageError(
            "--merge takes volumes as they are: leave --spacing, --axes, --orientation, --series "
            "and --split-slices out"
        )
    if not merge and len(sources) > 1:
        raise UsageError(
            f"one input is converted at a time, found {len(sources)}; several are put together "
            "with --merge"
        )
    done = (
        step.merge(sources, target)
        if merge
        else step.convert(
            sources[0],
            target,
            spacing_mm=None if spacing is None else parse_spacing(spacing),
            axes=axes,
            orientation=orientation,
            series=series,
            split_slices=split_slices,
        )
    )
    for path in done.written:
        typer.echo(f"written: {path}")
    for note in done.notes:
        typer.echo(f"note: {note}")
    _report_failures([f"{title}: {reason}" for title, reason in done.refused])


@app.command("import")
def import_model(
    kind: Annotated[str, typer.Argument(help="Source framework: nnunet.", metavar="KIND")],
    folder: Annotated[
        Path,
        typer.Argument(
            help="nnunet: a results folder TRAINER__PLANS__CONFIGURATION.", metavar="FOLDER"
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="The model's file.")],
    checkpoint: Annotated[
        str, typer.Option(help="Which file of each fold.")
    ] = "checkpoint_final.pth",
    folds: Annotated[
        str | None, typer.Option(help="Only these folds, such as 0,1; all of them where not given.")
    ] = None,
) -> None:
    """Turn a model that another program trained into one of delineate's. Nothing in its files is
    run.

    Example: `delineate import nnunet
    nnUNet_results/Dataset004_Hippocampus/nnUNetTrainer__nnUNetPlans__3d_fullres -o
    hippocampus.model`
    """
    from ..commands import import_model as step
    from ..core.errors import UsageError

    wanted = [] if folds is None else [fold.strip() for fold in folds.split(",") if fold.strip()]
    if not all(fold.isdigit() for fold in wanted):
        raise UsageError(f"folds are numbers such as 0,1,2, found {folds!r}")
    bundle = step.import_model(
        kind, folder, out, checkpoint=checkpoint, folds=[int(fold) for fold in wanted], say=_say
    )
    typer.echo(
        f"model {bundle.id} of {len(bundle.members)} network(s) in {out}: "
        f"{', '.join(bundle.labels.names)}"
    )


@app.command()
def quantise(
    model: Annotated[Path, typer.Argument(help="The model.", metavar="MODEL")],
    inputs: Annotated[
        list[Path],
        typer.Argument(
            help="Scans it is for: files, DICOM folders, folders of cases, manifests.",
            metavar="INPUT...",
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="The new model's file.")],
    truth: Annotated[
        Path | None,
        typer.Option(
            help="Their masks, as for evaluate; taken from INPUT where that is one cohort."
        ),
    ] = None,
    only: Annotated[
        str | None, typer.Option(help="train, val or test: that part of a cohort that is split.")
    ] = None,
    cases: Annotated[
        int,
        typer.Option(
            help="Number of calibration scans; the others measure the loss of accuracy.",
            metavar="N",
        ),
    ] = 8,
    seed: Annotated[int, typer.Option(help="Random seed for choosing the calibration scans.")] = 0,
) -> None:
    """Make a model ready for 8-bit integers, faster on many CPUs, and measure what they cost. Only
    `predict --precision int8` uses them.

    Example: `delineate quantise liver.model CT/ -o liver8.model`, then `delineate predict
    liver8.model CT/ -o out --precision int8`
    """
    from ..commands import quantise as step

    with _bar() as tell:
        done = step.quantise(
            model,
            list(inputs),
            out,
            truth=truth,
            only=only,
            cases=cases,
            seed=seed,
            say=_say,
            progress=tell,
        )
    _print(step.table(done))
    typer.echo(step.sentence(done))
    typer.echo(f"model {done.bundle.id} in {out}")
    _report_failures(list(done.failures))


@app.command()
def info(
    path: Annotated[
        Path, typer.Argument(help="A file, a folder or a model.", metavar="FILE|FOLDER|MODEL")
    ],
) -> None:
    """Say what a file, a folder of scans or a model is."""
    import json

    from ..core.bundle import Bundle

    if Bundle.is_bundle(path):
        data = _model_info(Bundle.load(path))
    else:
        from ..commands.convert import info as describe

        data = describe(path)
    typer.echo(json.dumps(data, indent=1, default=str))


@app.command()
def view(
    paths: Annotated[
        list[Path],
        typer.Argument(
            help="An image and its masks, each a file or folder; or a run (MODEL.run); or a "
            "manifest.jsonl.",
            metavar="IMAGE [MASK...]",
        ),
    ],
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Names of the masks' values: YAML, JSON or CSV; else predictions.json beside "
            "them tells."
        ),
    ] = None,
    port: Annotated[
        int, typer.Option(help="Port on 127.0.0.1; a free one where not given.", min=0, max=65535)
    ] = 0,
    browser: Annotated[
        bool,
        typer.Option("--browser/--no-browser", help="Open the page, or only print its address."),
    ] = True,
) -> None:
    """Show scans with their structures in three planes and 3-D, on a page of this computer alone.

    A run shows its scored cases, the lowest Dice first, with truth and prediction. Ctrl-C ends it.

    Examples: `delineate view CT/ out/CT.nii.gz`, `delineate view liver.model.run`
    """
    from ..commands import view as step

    step.view(
        paths, labels=labels, port=port, browser=browser, say=lambda text: print(text, flush=True)
    )


@app.command()
def report(
    run: Annotated[
        Path, typer.Argument(help="The run's folder, MODEL.run, or an evaluation's.", metavar="RUN")
    ],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="The HTML file to write.")] = None,
    interactive: Annotated[
        bool,
        typer.Option(
            "--interactive", help="Add the worst cases as volumes to look through (some MB)."
        ),
    ] = False,
) -> None:
    """Write the report of a run or an evaluation: one HTML file that needs nothing beside it.

    Examples: `delineate report liver.model.run`, `delineate report liver.model.run --interactive -o
    look.html`
    """
    from ..commands import report as step

    typer.echo(f"written: {step.report(run, out, interactive=interactive)}")


@app.command()
def demo(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for everything.")] = Path("demo"),
    budget: Annotated[str, typer.Option(help="Time for everything but the phantom itself.")] = "5m",
    patients: Annotated[
        int, typer.Option(help="Size of the phantom cohort; a quarter is kept for testing.")
    ] = 20,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    device: Annotated[str, DEVICE] = "auto",
) -> None:
    """The whole road on a phantom cohort: DICOM in, a trained and scored model, a report and a
    DICOM SEG out.
    """
    from ..commands import demo as step

    with _bar() as tell:
        done = step.demo(
            out,
            budget_s=parse_duration(budget),
            patients=patients,
            seed=seed,
            device=device,
            say=_say,
            progress=tell,
        )
    _report_failures(done.failures)


@app.command()
def phantom(
    out: Annotated[Path, typer.Argument(help="Folder for the cohort.", metavar="FOLDER")],
    patients: Annotated[int, typer.Option(help="How many.")] = 20,
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="dicom (CT series and PNG masks), nifti, volumes (TrainVolumes, "
            "TrainSegmentation, TestVolumes, TestSegmentation), "
            "chaos-mr (T1 in and out of phase, PNG masks) or ircadb (CT and a mask series an "
            "organ).",
        ),
    ] = "dicom",
    organs: Annotated[
        str | None,
        typer.Option(
            help="Organs that the masks hold, such as liver or liver,spleen; all four where not "
            "given."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
) -> None:
    """Make a synthetic abdominal CT or MR cohort with liver, spleen and two kidneys, to try things
    on.

    Example: `delineate phantom cohort/ --patients 6`
    """
    from ..cohorts.phantom.cohort import make_cohort

    chosen = [name.strip() for name in (organs or "").split(",") if name.strip()]
    with _bar() as tell:
        make_cohort(
            out,
            patients=patients,
            seed=seed,
            form=form,  # type: ignore[arg-type]  # refused by name where it is none of them
            organs=chosen,
            progress=tell,
        )
    typer.echo(f"{patients} patients written to {out}")


@app.command()
def benchmark(
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="JSON file for the figures.")
    ] = None,
    device: Annotated[str, DEVICE] = "auto",
) -> None:
    """Measure this machine: networks, a training step, preparing, restoring, patches and files, in
    about a minute.

    Example: `delineate benchmark`
    """
    from rich.table import Table

    from ..commands import benchmark as step

    with _bar() as tell:
        rows = step.benchmark(
            out,
            device=device,
            progress=tell,
        )
    table = Table(
        title=", ".join(
            f"{key.replace('_', ' ')} {value}"
            for key, value in step.machine().items()
            if value is not None
        )
    )
    for column in ("what", "seconds", "beside", "seconds", "ratio"):
        table.add_column(column, justify="left" if column in ("what", "beside") else "right")
    for row in rows:
        other = (
            ("–", "–")
            if row.other_s is None or row.ratio is None
            else (f"{row.other_s:.3f}", f"{row.ratio:.1f}")
        )
        table.add_row(row.what, f"{row.seconds:.3f}", row.other, *other)
    _print(table)


@app.command()
def download(
    name: Annotated[
        str | None, typer.Argument(help="Which data set; --list tells them.", metavar="NAME")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Folder for what is unpacked and for checksums.json."),
    ] = None,
    listed: Annotated[
        bool,
        typer.Option("--list", help="List the data sets with their licences, and do nothing else."),
    ] = False,
    only: Annotated[
        str | None,
        typer.Option(help="Part of a data set of several files, such as disc1 or disc1,disc2."),
    ] = None,
    mirror: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Address of a folder that holds the same files, instead of the publisher's.",
            metavar="URL",
        ),
    ] = None,
    keep_archives: Annotated[
        bool,
        typer.Option(
            "--keep-archives", help="Leave the archives beside what was unpacked from them."
        ),
    ] = False,
) -> None:
    """Download a public data set (resumable), check it and unpack it.

    Example: `delineate download decathlon-hippocampus -o data/`
    """
    from ..cohorts.public import download as step
    from ..core.errors import UsageError

    if listed:
        _print(step.table())
        return
    if name is None or out is None:
        raise UsageError(
            "say which data set and where to, such as: delineate download decathlon-hippocampus "
            "-o data/ (delineate download --list)"
        )
    words = [word.strip() for word in (only or "").split(",") if word.strip()]
    with _bar() as tell:
        step.download(
            step.find(name),
            out,
            only=words,
            mirror=mirror or "",
            keep_archives=keep_archives,
            say=_say,
            progress=tell,
        )


# ---- what the verbs share ----


def parse_duration(text: str) -> float:
    """Seconds of "90s", "10m", "1h30m", "2d" or a bare number of seconds.

    Raises:
        UsageError: anything else.
    """
    from ..core.errors import UsageError

    units = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "": 1.0}
    parts = re.findall(r"(\d+(?:\.\d+)?)([dhms]?)", text)
    if (
        not parts
        or "".join(n + u for n, u in parts) != text
        or (len(parts) > 1 and any(not u for _, u in parts))
    ):
        raise UsageError(f"a time is written like 90s, 10m, 1h30m or 2d, found {text!r}")
    return sum(float(n) * units[u] for n, u in parts)


def parse_bytes(text: str) -> int:
    """Bytes of "4G", "500M", "1.5 GiB" (powers of 1024) or a bare number of bytes.

    Raises:
        UsageError: anything else.
    """
    from ..core.errors import UsageError

    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if found is None or float(found[1]) == 0:
        raise UsageError(f"an amount of memory is written like 4G or 500M, found {text!r}")
    return int(float(found[1]) * 1024 ** " KMGT".index(found[2].upper() or " "))


def parse_channels(texts: Sequence[str]) -> dict[str, str]:
    """{"flair": "a.nii.gz", "t1": "b.nii.gz"} of ["flair=a.nii.gz,t1=b.nii.gz"]; a comma in a
    file's name is part of it.

    Raises:
        UsageError: of another form, or a name given twice.
    """
    from ..core.errors import UsageError

    found: dict[str, str] = {}
    for part in (part for text in texts for part in re.split(r",(?=[^,=/]+=)", text)):
        name, _, value = (word.strip() for word in part.partition("="))
        if not name or not value or name in found:
            problem = (
                f"gives {name} twice"
                if name in found
                else f"is written like flair=a.nii.gz,t1=b.nii.gz, found {part!r}"
            )
            raise UsageError(f"--channels {problem}")
        found[name] = value
    return found


def parse_spacing(text: str) -> tuple[float, ...]:
    """(0.5, 0.5, 2.0) of "0.5,0.5,2" or "0.5x0.5x2".

    Raises:
        UsageError: not two or three positive numbers.
    """
    from ..core.errors import UsageError

    try:
        values = tuple(float(v) for v in re.split(r"[,x ]+", text.strip()))
    except ValueError:
        values = ()
    if len(values) not in (2, 3) or min(values) <= 0:
        raise UsageError(
            f"a spacing is two or three positive numbers in mm, such as 0.5,0.5,2, found {text!r}"
        )
    return values


def _model_info(bundle: Any) -> dict[str, Any]:
    from ..core.bundle import weights_sha256

    plan = bundle.plan
    return {
        "kind": "delineate model",
        "id": bundle.id,
        "structures": {label.value: label.name for label in bundle.labels},
        "channels": [c.name for c in plan.channels],
        "network": f"{plan.dims}-D {plan.network.kind}, "
        f"{plan.network.widths[0]}-{plan.network.widths[-1]} wide",
        "spacing_mm": plan.spacing_mm,
        "patch": plan.patch,
        "members": [
            {
                "name": m.name,
                "fold": m.fold,
                "weight": m.weight,
                "parameters": sum(int(a.size) for a in m.weights.values()),
                "weights_sha256": weights_sha256(m.weights),
            }
            for m in bundle.members
        ],
        "card": bundle.card,
    }


def _text(path: Path | None) -> str:
    return "" if path is None else os.path.abspath(path)


def _say(text: str) -> None:
    """One line of news; on a terminal it goes through the console so that it stands above a running
    bar.
    """
    if _console is not None:
        _console.print(text, highlight=False, markup=False)
    else:
        typer.echo(text)


_console: Any = None


@contextmanager
def _bar() -> Iterator[Progress]:
    """A progress bar with the time left on a terminal; plain lines at every tenth elsewhere."""
    global _console
    if not sys.stderr.isatty():
        yield _plain_progress()
        return
    import rich.progress
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    _console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:12}"),
        BarColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with rich.progress.Progress(*columns, console=_console) as bar:
        tasks: dict[str, Any] = {}

        def tell(stage: str, done: float, total: float, note: str) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total, note=note)
            bar.update(tasks[stage], completed=done, total=total, note=str(note)[:40])

        try:
            yield tell
        finally:
            _console = None


def _plain_progress() -> Progress:
    shown: dict[str, int] = {}

    def tell(stage: str, done: float, total: float, note: str) -> None:
        tenth = int(10 * done / total) if total else 10
        if tenth > shown.get(stage, -1):
            shown[stage] = tenth
            amount = f"{done:g} of {total:g}" if total > 1 else f"{100 * done:.0f} %"
            print(f"{stage}: {amount} {note}".rstrip(), file=sys.stderr, flush=True)

    return tell


def _print(renderable: Any) -> None:
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 140).print(renderable)


def _report_failures(failures: Sequence[str]) -> None:
    if failures:
        for text in failures:
            typer.echo(f"failed: {text}", err=True)
        raise typer.Exit(1)


def main() -> None:
    """Entry point: runs the app and turns our own errors into one sentence and exit code 2."""
    from ..core.errors import DelineateError

    try:
        app()
    except DelineateError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        typer.echo("stopped; what was done so far is kept", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)
