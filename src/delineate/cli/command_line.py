"""The command line: one function per command. Each parses nothing itself, calls the command and
prints what it returns; its options are the fields of its dataclass in ``commands.options``.

Exit codes are those of ``exits``. A user's mistake gives one sentence, no traceback. Commands are
imported when they run, so that ``--help`` is quick.
"""

from __future__ import annotations

import copy
import importlib
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.main

from ..commands.options import (
    REPLACE,
    BenchmarkOptions,
    CheckOptions,
    CleanOptions,
    CompareOptions,
    ConvertOptions,
    DemoOptions,
    DownloadOptions,
    EvaluateOptions,
    ExportSlicesOptions,
    GlobalOptions,
    ImportOptions,
    InfoOptions,
    MergeSlicesOptions,
    PhantomOptions,
    PlanOptions,
    PredictOptions,
    QuantiseOptions,
    ReportOptions,
    ServeOptions,
    TrainOptions,
    ViewOptions,
    data_set_names,
)
from ..commands.parsing import parse_duration, parse_lower_names
from ..core.errors import DelineateError, UsageError
from ..core.machine import become_program
from . import served, terminal
from .exits import UNUSABLE_MODEL, Commands, exit_codes
from .expansion import completion, with_options
from .terminal import (
    ask,
    end_with,
    progress_bar,
    result,
    say,
    show,
    show_facts,
    show_json,
    table_width,
)

if TYPE_CHECKING:
    from ..commands.predict import ListReport

log = logging.getLogger(__name__)
# Modules that ``predict`` loads when it needs them, and a process that stays loads at its start.
USED_BY_PREDICT = (
    *("..commands.predict", "..commands.predict.outlook", "..reporting.prediction_table"),
    *("..inference.engine", "..inference.predictor"),
)
app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="From a folder of scans with masks to a validated segmentation model, and from a scan "
    "to its structures.",
)

Data = Annotated[
    Path,
    typer.Argument(
        help="A folder of scans (with masks), a manifest.jsonl, or one scan.", metavar="DATA"
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Only print what would be done; write nothing.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
ModelPath = Annotated[Path, typer.Argument(help="The model.", metavar="MODEL")]


def out(help: str, metavar: str | None = None) -> typer.models.OptionInfo:
    """The option ``-o``, which every command that writes has."""
    return typer.Option("-o", "--out", help=help, metavar=metavar)  # type: ignore[no-any-return]


PredictionTarget = Annotated[
    str,
    out(
        "Folder for CASE.nii.gz and predictions.json; of work lists also a URL, such as "
        "s3://bucket/masks.",
        "PATH",
    ),
]
PredictionInputs = Annotated[
    list[str] | None,
    typer.Argument(
        help="Files, DICOM folders, folders of cases, or manifests; none if --channels names "
        "files. Or from an archive: dicomweb:URL/studies/UID, or dimse:AE@host:port/UID, and "
        "one of its series with /series/UID or /UID. Or work lists of any length: LIST.jsonl, "
        "LIST.parquet, LIST.csv, or a pattern such as 'scans/*.nii.gz', here or in a store "
        "(s3://, gs://, az://, https://).",
        metavar="[INPUT...]",
    ),
]


def _print_version(asked: bool) -> None:
    if asked:
        from .. import __version__

        typer.echo(f"delineate {__version__}")
        raise typer.Exit


@app.callback()
@with_options(GlobalOptions)
def global_options(
    context: typer.Context,
    options: GlobalOptions,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Global options."""
    terminal.set_up(
        quiet=options.quiet,
        verbose=options.verbose,
        log=options.log,
        log_format=options.log_format,
    )
    if options.config is not None and options.no_config:
        raise UsageError("--config and --no-config exclude each other")
    if not options.no_config:
        _use_defaults(context, options.config)


def _use_defaults(context: typer.Context, given: Path | None) -> None:
    """Use the defaults of a configuration file for the command that was called."""
    from . import configuration

    path = given or configuration.find()
    if path is None:
        return
    every: Any = typer.main.get_command(app)
    found = configuration.defaults(path, every.commands, context)
    context.default_map = found
    context.obj = path
    for name, value in found.get(context.invoked_subcommand or "", {}).items():
        log.debug("default from %s: %s = %s", path, name, value)


@app.command()
@with_options(CheckOptions)
def check(
    data: Data,
    options: CheckOptions,
    target: Annotated[
        Path | None,
        out(
            "Folder for manifest.jsonl and findings.json; by default NAME.check/ in the current "
            "folder."
        ),
    ] = None,
    draft: Annotated[
        Path | None,
        typer.Option(help="Only write a first YAML description of this folder to this file."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Report what is in DATA, what is wrong with it, and what can be repaired.

    Example: `delineate check hippocampus/ -o checked/`
    """
    from ..commands import check as step

    if draft is not None:
        drafted = step.write_draft(data, draft, options.overwrite)
        say(f"a first description is in {draft}: {drafted}; pass it with --description")
        return
    target = target or Path(f"{data.resolve().name}.check")
    with progress_bar() as progress:
        report = step.check(data, target, options, progress=progress)
    if as_json:
        show_json(step.to_json(report))
    else:
        show(step.table(report))
    if options.work.shard.is_whole and not as_json:
        say(
            f"written: {target / 'manifest.jsonl'}, {target / 'findings.json'}"
            + (f"; repaired copies in {options.fix}" if options.fix else "")
        )
    if any(finding.severity == "error" for finding in report.findings):
        raise typer.Exit(1)


@app.command()
@with_options(PlanOptions)
def plan(
    data: Data,
    options: PlanOptions,
    target: Annotated[Path, out("File for the plan.")] = Path("plan.json"),
) -> None:
    """Derive a plan from DATA and this machine, with the reason for each choice; edit it and pass
    it to `train --plan`.
    """
    from ..commands import plan as step

    failures: list[DelineateError] = []
    with progress_bar() as progress:
        made = step.plan(data, target, options, failed=failures.append, progress=progress)
    for key, reason in made.reasons.items():
        result(f"{key}: {reason}")
    say(f"written: {target}")
    for error in failures:
        terminal.fail(f"failed: {error}")
    raise typer.Exit(1 if failures else 0)


@app.command()
@with_options(TrainOptions)
def train(
    data: Data,
    model: Annotated[
        Path, out("The model to write, one file; the run's folder is this name + .run.", "MODEL")
    ],
    options: TrainOptions,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Check, plan, prepare, train, evaluate, bundle and report.

    The same command after a kill continues the run. There is a valid model on disk from the first
    validation on. With --extend a finished run continues.

    Example: `delineate train hippocampus/ -o hippocampus.model --budget 10m`
    """
    from ..commands.train import outlook
    from ..commands.train import train as step

    if dry_run:
        with progress_bar() as progress:
            found = outlook.outlook(data, model, options, progress=progress)
        if as_json:
            show_json(found.to_json())
        else:
            show_facts(found.facts())
        return
    with progress_bar() as progress:
        done = step.train(data, model, options, say=say, progress=progress)
    if as_json:
        verdict = done.verdict.to_json()
        show_json({**vars(done), "failures": list(done.failures), "verdict": verdict})
    end_with(done.failures, 0 if done.verdict.is_usable else UNUSABLE_MODEL)


@app.command()
@with_options(PredictOptions)
def predict(
    model: ModelPath,
    target: PredictionTarget,
    options: PredictOptions,
    inputs: PredictionInputs = None,
    keep: Annotated[
        str | None,
        typer.Option(
            served.KEEP,
            help="Use the resident engine, which keeps models compiled, and start it in the "
            "background if there is none; it ends after this time without a call, such as 10m.",
            metavar="TIME",
        ),
    ] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Segment scans: OUT/CASE.nii.gz on exactly each scan's grid, and OUT/predictions.json with
    volumes in ml.

    Example: `delineate predict liver.model CT/ -o out/`
    """
    from ..commands import predict as step
    from ..commands.predict import outlook
    from ..reporting.prediction_table import table

    _in_engine_or_not(options, keep)
    if dry_run:
        found = outlook.outlook(model, inputs or [], target, options)
        if as_json:
            show_json(found.to_json())
        else:
            show(outlook.table(found))
            result(found.sentence())
        for note in found.notes:
            say(note)
        end_with(list(found.failures.values()))
        return
    with progress_bar() as progress:
        done = step.predict(model, inputs or [], target, options, say=say, progress=progress)
    if isinstance(done, step.ListReport):
        _end_list(done, as_json)
        return
    written = {outcome.name: outcome.value or {} for outcome in done.written}
    if as_json:
        failed = {outcome.name: str(outcome.error) for outcome in done.failures}
        show_json({"out": done.out, "cases": written, "failures": failed})
    elif written:
        show(table(written, table_width()))
    say(f"{len(done.written)} of {len(done.outcomes)} cases written to {done.out}")
    if len(done.written) > 1 and done.utilisation is not None:
        say(done.utilisation.sentence())
    end_with([str(outcome.error) for outcome in done.failures])


def _in_engine_or_not(options: PredictOptions, keep: str | None) -> None:
    """State why no resident engine is used, if the user may expect it; give calls with limits,
    which are those of a process, back from an engine.
    """
    seconds = None if keep is None else parse_duration(keep)
    of_memory = (options.ram_bytes, options.vram_bytes, options.case_memory_bytes)
    limits = (*of_memory, options.case_timeout_s)
    if options.engine != "local" or any(one is not None for one in limits):
        from ..commands import serve as engine

        engine.decline()
    if served.note:
        say(served.note)
    if seconds is not None:
        from ..commands import serve as engine

        engine.keep_for(seconds)


@app.command()
@with_options(ServeOptions)
def serve(
    options: ServeOptions,
    local: Annotated[
        bool, typer.Option("--local", help="For processes of this user on this machine only.")
    ] = False,
    show_status: Annotated[
        bool, typer.Option("--status", help="Only show the engine that runs.")
    ] = False,
    end: Annotated[
        bool, typer.Option("--stop", help="Only end the engine that runs, after its call.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Keep models compiled in memory for the `predict` of other processes, until a time without
    calls.

    Example: `delineate serve --local --idle 1h`
    """
    from ..commands import serve as step

    if not local:
        raise UsageError("serve needs --local: it serves processes of this user on this machine")
    if end:
        result("stopped" if step.stop() else "no resident engine")
    elif not show_status:
        step.serve(options, run=_program(), say=say)
    elif (found := step.status()) is None:
        result("no resident engine")
    elif as_json:
        show_json(found)
    else:
        show_facts(found)


def _program() -> Callable[[Sequence[str], str], int]:
    """A function that runs a command line as a process of its own does, and returns its exit code.
    What a call loads later is loaded now.
    """
    from ..inference import openvino

    for name in USED_BY_PREDICT:
        importlib.import_module(name, __package__)
    if openvino.available():
        openvino.fast_precision()  # which loads its libraries
    command = typer.main.get_command(app)

    def run(words: Sequence[str], name: str) -> int:
        try:
            with terminal.another_call(), exit_codes():
                command(list(words), prog_name=name)
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else int(end.code is not None)
        return 0

    return run


def _end_list(done: ListReport, as_json: bool) -> None:
    """Print the numbers and the first failures of a work list."""
    if as_json:
        show_json({**vars(done), "outcomes": [str(one.error) for one in done.outcomes]})
    say(done.sentence())
    end_with([str(outcome.error) for outcome in done.failures])


@app.command()
def status(
    folder: Annotated[
        str,
        typer.Argument(
            help="The folder or URL of predict -o, while it works or later.", metavar="OUT"
        ),
    ],
    as_json: AsJson = False,
    metrics: Annotated[
        str,
        typer.Option(
            help="For Prometheus: a port of this computer at which to answer until Ctrl-C, or a "
            "file to write once.",
            metavar="PORT|FILE",
        ),
    ] = "",
) -> None:
    """Show the progress of predictions: cases done, failed and left, the rate and the time left, of
    all calls and shards that write to OUT.

    Example: `delineate status out/`
    """
    from ..commands import status as step

    if metrics:
        step.publish(folder, metrics, say)
        return
    found = step.status(folder)
    if as_json:
        show_json(found.to_json())
        return
    for sentence in found.sentences():
        result(sentence)
    for why in found.failed.values():
        result(f"failed: {why}")


@app.command()
def summarise(
    folder: Annotated[Path, typer.Argument(help="The folder of predict -o.", metavar="OUT")],
    target: Annotated[
        Path | None,
        out("Folder for summary.csv, .parquet and .html; by default OUT."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help=REPLACE)] = False,
) -> None:
    """Write the volumes, flags and seconds of all results as one table, and the report of the
    archive: volumes by scanner, year, sex and age where a work list states them, and outliers.

    Example: `delineate summarise out/`
    """
    from ..commands.predict.summarise import summarise as step

    done = step(folder, target, say, overwrite)
    say(f"{done.done} results, {done.failed} failed")
    for path in done.written:
        say(f"written: {path}")


@app.command()
@with_options(EvaluateOptions)
def evaluate(
    prediction: Annotated[
        Path, typer.Argument(help="A file or folder of predicted masks.", metavar="PRED")
    ],
    truth: Annotated[
        Path,
        typer.Argument(
            help="A file, folder, manifest or cohort of reference masks.", metavar="TRUTH"
        ),
    ],
    options: EvaluateOptions,
    target: Annotated[
        Path | None, out("Folder for scores.csv, scores.json and slices.csv.")
    ] = None,
    columns: Annotated[
        str,
        typer.Option(
            help="Columns of the table, such as dice,hd95,recall: any metrics, and n, empty, "
            "median, min and pooled of the Dice; scores.csv has all metrics.",
            metavar="NAME,...",
        ),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Score predictions against reference masks, paired by name: per case, slice and patient, and
    pooled; and write a report.

    Example: `delineate evaluate out/ labels/ -o scores/ --pictures --images images/`
    """
    from ..commands import evaluate as step
    from ..reporting.score_table import chosen_columns, table

    asked = parse_lower_names(columns)
    chosen_columns(asked, step.metric_selection(options))  # refused before any work
    with progress_bar() as progress:
        done = step.evaluate(prediction, truth, target, options, progress=progress)
    if as_json:
        show_json(done.to_json())
    elif options.shard is not None and not done.scores.rows:
        for note in done.notes:
            say(note)
    else:
        show(table(done, asked, table_width()))
        if done.pictures:
            count = f"{len(done.pictures)} picture{'s' * (len(done.pictures) != 1)}"
            say(f"{count} in {Path(done.pictures[0]).parent}")
        if options.report and target is not None:
            say(f"report: {target / 'report.html'}")
    end_with([f"{name}: {why}" for name, why in done.failures.items()])


@app.command()
@with_options(CompareOptions)
def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="Two or more: runs (MODEL.run), models, evaluations, scores.json or scores.csv.",
            metavar="RUN RUN...",
        ),
    ],
    target: Annotated[Path, out("Folder for compare.csv, compare.json and the plots.")],
    options: CompareOptions,
    as_json: AsJson = False,
) -> None:
    """Compare runs case by case: differences to the first run with confidence interval, test and
    effect size; ranks, plots, and a conclusion in words.

    Example: `delineate compare plain.model.run augmented.model.run -o compared/`
    """
    from ..commands import compare as step
    from ..reporting.compare_table import table

    done = step.compare(runs, target, options)
    if as_json:
        show_json(done.to_json())
        return
    show(table(done, table_width()))
    say(f"written: compare.csv, compare.json, boxplot and differences (.png and .svg) in {target}")


@app.command()
@with_options(ConvertOptions)
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
            help="A file (.nii.gz, .nii, .nrrd, .mha, .png; .seg.dcm and "
            ".rtstruct.dcm for masks with --like), "
            "or a folder for several files.",
            metavar="OUTPUT",
        ),
    ],
    options: ConvertOptions,
) -> None:
    """Convert one scan to another format; a folder with several DICOM series gives one file per
    series.

    Examples: `delineate convert DICOM/ scan.nii.gz`, `delineate convert DICOM/ parts/
    --split-slices 64`, `delineate convert parts/ scan.nii.gz --merge`, `delineate convert
    mask.nii.gz mask.seg.dcm --like CT/`, `delineate convert CT/ clean/ --deidentify
    basic,dates`
    """
    from ..commands import convert as step

    with progress_bar() as progress:
        done = step.convert(sources, target, options, progress=progress)
    for path in (*done.written, *done.records):
        say(f"written: {path}")
    for note in done.notes:
        say(f"note: {note}")
    end_with(done.failures)


@app.command()
@with_options(ExportSlicesOptions)
def export_slices(
    data: Data,
    options: ExportSlicesOptions,
    target: Annotated[Path, out("A new folder for the slices.")],
    as_json: AsJson = False,
) -> None:
    """Write every slice of a cohort, with its mask, as a picture or an array, for 2-D tools; with
    an index (index.csv) and the geometry (slices.json), from which `merge-slices` rebuilds the
    volumes.

    Example: `delineate export-slices CT/ -o slices/ --window -200,200 --bits 8`
    """
    from ..commands.slices import export_slices as step

    with progress_bar() as progress:
        done = step.export_slices(data, target, options, progress=progress)
    for note in done.notes:
        say(f"note: {note}")
    if as_json:
        show_json(done.to_json())
    say(f"{done.slices} slices of {len(done.cases)} cases written to {done.out}")
    end_with(done.failures)


@app.command()
@with_options(MergeSlicesOptions)
def merge_slices(
    slices: Annotated[
        Path, typer.Argument(help="A folder that export-slices wrote.", metavar="SLICES")
    ],
    options: MergeSlicesOptions,
    target: Annotated[Path, out("Folder for the volumes.")],
) -> None:
    """Rebuild the volumes of exported slices, or with --masks those of masks that were predicted on
    them, on exactly the grids of the scans.

    Example: `delineate merge-slices slices/ -o volumes/ --masks predicted/`
    """
    from ..commands.slices import merge_slices as step

    with progress_bar() as progress:
        done = step.merge_slices(slices, target, options, progress=progress)
    for note in done.notes:
        say(f"note: {note}")
    say(f"{len(done.written)} files written to {target}")
    end_with(done.failures)


@app.command("import")
@with_options(ImportOptions)
def import_model(
    kind: Annotated[str, typer.Argument(help="Source framework: nnunet.", metavar="KIND")],
    folder: Annotated[
        Path,
        typer.Argument(
            help="nnunet: the folder of the trained network, or one above it.", metavar="FOLDER"
        ),
    ],
    target: Annotated[Path, out("The model to write.")],
    options: ImportOptions,
) -> None:
    """Convert a model that another framework trained. No code in its files is run.

    Example: `delineate import nnunet nnUNet_results/Dataset004_Hippocampus -o hippocampus.model`
    """
    from ..commands import import_model as step

    bundle = step.import_model(kind, folder, target, options, say=say)
    say(
        f"model {bundle.id} of {len(bundle.members)} network(s) in {target}: "
        f"{', '.join(bundle.labels.names)}"
    )


@app.command()
@with_options(QuantiseOptions)
def quantise(
    model: ModelPath,
    inputs: Annotated[
        list[Path],
        typer.Argument(
            help="Scans like those it will segment: files, DICOM folders, folders of cases, "
            "manifests.",
            metavar="INPUT...",
        ),
    ],
    target: Annotated[Path, out("The new model to write.")],
    options: QuantiseOptions,
    as_json: AsJson = False,
) -> None:
    """Calibrate a model for INT8 inference, which is faster on many CPUs, and measure the loss of
    accuracy. Only `predict --precision int8` uses it.

    Example: `delineate quantise liver.model CT/ -o liver8.model`, then `delineate predict
    liver8.model CT/ -o out --precision int8`
    """
    from ..commands import quantise as step

    with progress_bar() as progress:
        done = step.quantise(model, inputs, target, options, say=say, progress=progress)
    if as_json:
        show_json({"model": done.bundle.id, **done.cost})
    else:
        show(step.table(done))
        result(step.sentence(done))
        say(f"model {done.bundle.id} in {target}")
    end_with(done.failures)


@app.command()
@with_options(InfoOptions)
def info(
    path: Annotated[
        Path, typer.Argument(help="A file, a folder, a model or a run.", metavar="PATH")
    ],
    options: InfoOptions,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Describe a file, a folder of scans, a model or a run (MODEL.run)."""

    from ..commands import info as step

    facts = step.info(path, options)
    if as_json:
        show_json(facts)
    else:
        show_facts(facts)


@app.command()
@with_options(ViewOptions)
def view(
    paths: Annotated[
        list[Path],
        typer.Argument(
            help="An image and its masks, each a file or folder; or a run (MODEL.run) or its "
            "model; or a manifest.jsonl.",
            metavar="IMAGE [MASK...]",
        ),
    ],
    options: ViewOptions,
) -> None:
    """Show scans with their structures in three planes and 3-D, on a page that only this computer
    can open.

    A run shows its scored cases, the lowest Dice first, with reference and prediction. Ctrl-C
    stops it.

    Examples: `delineate view CT/ out/CT.nii.gz`, `delineate view liver.model.run`
    """
    from ..commands import view as step

    step.view(paths, options, say=result)


@app.command()
@with_options(ReportOptions)
def report(
    run: Annotated[
        Path,
        typer.Argument(help="The folder of a run, MODEL.run, or of an evaluation.", metavar="RUN"),
    ],
    options: ReportOptions,
    target: Annotated[Path | None, out("The HTML file to write.")] = None,
) -> None:
    """Write the report of a run or an evaluation: one HTML file that needs no other file.

    Examples: `delineate report liver.model.run`, `delineate report liver.model.run --interactive -o
    look.html`
    """
    from ..commands import report as step

    say(f"written: {step.report(run, target, options)}")


@app.command()
@with_options(DemoOptions)
def demo(
    options: DemoOptions,
    target: Annotated[Path, out("Folder for all files.")] = Path("demo"),
) -> None:
    """The whole pipeline on a phantom cohort: DICOM in; a trained and scored model, a report and a
    DICOM SEG out.
    """
    from ..commands import demo as step

    with progress_bar() as progress:
        done = step.demo(target, options, say=say, progress=progress)
    end_with(done.failures, 0 if done.verdict.is_usable else UNUSABLE_MODEL)


@app.command()
@with_options(PhantomOptions)
def phantom(
    target: Annotated[Path, typer.Argument(help="Folder for the cohort.", metavar="FOLDER")],
    options: PhantomOptions,
) -> None:
    """Make a synthetic abdominal CT or MR cohort with liver, spleen and two kidneys, for trials.

    Example: `delineate phantom cohort/ --patients 6`
    """
    from ..commands import trial_data as step

    with progress_bar() as progress:
        step.phantom(target, options, progress=progress)
    say(f"{options.patients} patients written to {target}")


@app.command()
@with_options(BenchmarkOptions)
def benchmark(
    options: BenchmarkOptions,
    target: Annotated[Path | None, out("JSON file for the figures.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure this machine: networks, a training step, preparing, restoring, patches and files, in
    about a minute.

    Example: `delineate benchmark`
    """
    from ..extras import require_extra

    require_extra("train", "benchmark")
    from ..commands import benchmark as step

    with progress_bar() as progress:
        rows = step.benchmark(target, options, progress=progress)
    if as_json:
        show_json(step.record(rows))
    else:
        show(step.table(rows))


@app.command()
def recipes(as_json: AsJson = False) -> None:
    """List the published systems that `train --recipe` reproduces."""
    from ..commands import recipes as step

    if as_json:
        show_json(step.recipes())
    else:
        show(step.table())


@app.command()
def runs(
    folder: Annotated[
        Path, typer.Argument(help="Folder with runs in it and below it.", metavar="[FOLDER]")
    ] = Path("."),
    as_json: AsJson = False,
) -> None:
    """List the training runs below a folder: state, epochs, Dice, age and size on disk.

    Example: `delineate runs models/`
    """
    from ..commands import runs as step

    found = step.runs(folder)
    if as_json:
        show_json([run.to_json() for run in found])
    elif found:
        show(step.table(found, folder))
    else:
        say(f"no runs (folders MODEL.run) in {folder} and below it")


@app.command()
@with_options(CleanOptions)
def clean(
    options: CleanOptions,
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Folders with runs in them and below them, runs, or models; by default this "
            "folder.",
            metavar="[FOLDER|MODEL|MODEL.run...]",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Delete the prepared cases of finished runs, which only `train --extend` needs, and would make
    again. Model, scores and report stay.

    Example: `delineate clean models/`
    """
    from ..commands import runs as step
    from ..core.words import data_size

    chosen, kept = step.cleanable(paths or [Path(".")])
    for sentence in kept:
        say(sentence)
    for run in chosen:
        say(f"{run.folder / step.STORE}: {data_size(run.store_bytes)}")
    size = data_size(sum(run.store_bytes for run in chosen))
    if chosen and not options.yes and not ask(f"delete {size} of {len(chosen)} finished runs?"):
        raise UsageError("nothing was deleted; --yes deletes without asking")
    cleaned = step.clean(chosen)
    say(f"{data_size(sum(run.store_bytes for run in cleaned))} freed in {len(cleaned)} runs")
    if as_json:
        show_json([run.to_json() for run in cleaned])


@app.command()
@with_options(DownloadOptions)
def download(
    options: DownloadOptions,
    name: Annotated[
        str | None,
        typer.Argument(
            help="Name of the data set; --list shows all.",
            metavar="NAME",
            autocompletion=completion(data_set_names),
        ),
    ] = None,
    target: Annotated[Path | None, out("Folder for the unpacked files and checksums.json.")] = None,
    listed: Annotated[
        bool, typer.Option("--list", help="Only list the data sets with their licences.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Download a public data set (resumable), check it and unpack it.

    Example: `delineate download decathlon-hippocampus -o data/`
    """
    from ..cohorts.public import download as public
    from ..commands import trial_data as step

    if listed:
        if as_json:
            show_json(public.listed())
        else:
            show(public.table())
        return
    if name is None or target is None:
        raise UsageError(
            "give the name of a data set and a folder, such as: delineate download "
            "decathlon-hippocampus -o data/ (delineate download --list shows all)"
        )
    with progress_bar() as progress:
        step.download(name, target, options, say=say, progress=progress)


def main() -> None:
    """Run the app; an error becomes one sentence and an exit code."""
    become_program()
    with exit_codes():
        _app_for(sys.argv[1:])()


def _app_for(words: Sequence[str]) -> typer.Typer:
    """The app with only the command that the first word names, if it names one: typer takes as long
    to build all commands as a small scan takes.
    """
    name = typer.main.get_command_name
    named = [
        one
        for one in app.registered_commands
        if one.callback and words[:1] == [one.name or name(one.callback.__name__)]
    ]
    alone = copy.copy(app)
    alone.registered_commands = named or app.registered_commands
    return alone
