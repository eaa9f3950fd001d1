"""The options of every command as frozen dataclasses. A command is one function that takes its
dataclass; the command line is generated from it.

A field is one option: its type, its default and its help text are in one place. Options are
plain values: paths, numbers, words. What a command reads and the file or folder that it writes are
not options, but arguments of its function. Nothing is imported here that takes time, so that
``--help`` is quick.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from . import parsing

if TYPE_CHECKING:
    from ..execution.executor import Work
    from ..formats.dicom.seg import SegEncoding

AnyPath = str | Path
Given = ParamSpec("Given")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Spelling:
    """How an option is written on the command line.

    Args:
        help: one or two sentences.
        flags: such as ("-o", "--out"); () derives ``--dicom-seg`` from the field ``dicom_seg``.
        metavar: the placeholder of its value in the help.
        parse: makes the field's value of the text given; None if typer converts it.
        repeated: the option may be given several times; ``parse`` then receives all texts.
        low, high: the smallest and the largest number allowed.
        choices: the values that shell completion offers; called only then.
    """

    help: str
    flags: tuple[str, ...] = ()
    metavar: str | None = None
    parse: Callable[[Any], Any] | None = None
    repeated: bool = False
    low: int | None = None
    high: int | None = None
    choices: Callable[[], Iterable[str]] | None = None


def option(default: Any, help: str, *flags: str, **more: Any) -> Any:
    """A dataclass field with its spelling; the other arguments are those of ``Spelling``."""
    return field(default=default, metadata={"spelling": Spelling(help, flags, **more)})


BACKENDS = ("auto", "openvino", "torch")
MONTAGES = ("outlined", "filled")
PRECISIONS = ("auto", "float", "float32", "int8")
DEVICES = ("auto", "cpu", "cuda", "mps")
LOG_FORMATS = ("text", "json")
DEVICE = "auto, cpu, cuda, cuda:N or mps."
SEED = "Seed of everything random."
WORKERS = "Number of processes; chosen for the machine by default."
REPLACE = "Also replace files that delineate did not write, or that were edited; never an input."
ONLY = "train, val or test: only this part of a cohort with a split."
SHARD = (
    "Do only this part of the cases, such as 3/100 (numbers from 1): many calls, on any machines, "
    "with the same OUT do them all, without knowing of each other."
)
ENGINE = (
    "local (this machine), ray (the Ray cluster of this machine, or one that is started for the "
    "call) or ray://HOST:PORT."
)
REGISTER_BY = (
    "frame: DICOM labels must have the frame of reference of the image, as by default; position: "
    "labels of another one are put where their positions say."
)
IGNORE = (
    "A value in reference masks that marks voxels of unknown truth, such as 255 or -1: they are "
    "neither learnt from nor scored; may be repeated."
)
DIMS = "2 or 3, instead of the choice of the rules."
SPLIT = (
    "Which patients train, validate and test: a ratio TRAIN/TEST or TRAIN/VAL/TEST, in percent of "
    "the patients (80/10/10) or in patients (16/4); or a JSON file with lists of case or patient "
    "ids, such as the split.json of a run or nnU-Net's splits_final.json."
)


# ---- the values that shell completion offers ----


def registered(register: str) -> Callable[[], Iterable[str]]:
    """The names in a register of ``extend.registers``, such as "LAYOUTS"."""

    def names() -> Iterable[str]:
        from ..extend import registers

        return getattr(registers, register).names()  # type: ignore[no-any-return]

    return names


def split_names() -> Iterable[str]:
    """Names for ``--only``."""
    from ..core.manifest import SPLITS

    return map(str, SPLITS)


def mask_formats() -> Iterable[str]:
    """Endings of masks for ``predict --format``. A .mhd file would need a second one next to it."""
    from ..formats.files import writable

    return [ending.removeprefix(".") for ending in writable() if ending != ".mhd"]


def prediction_formats() -> Iterable[str]:
    """The words of ``predict --format``: endings of masks, and kinds of DICOM objects."""
    from ..formats.dicom.source import OBJECTS

    return [*mask_formats(), *OBJECTS]


def data_set_names() -> Iterable[str]:
    """Names for ``download``."""
    from ..cohorts.public.catalogue import DATA_SETS

    return DATA_SETS


# ---- the options ----


@dataclass(frozen=True, kw_only=True)
class GlobalOptions:
    """Options before the command, of every command."""

    quiet: bool = option(False, "Print only results and errors.", "-q", "--quiet")
    verbose: bool = option(
        False, "Also print which files and settings are used.", "-v", "--verbose"
    )
    log: Path | None = option(
        None, "Append everything to this file, with times, also what is not printed."
    )
    log_format: str = option(
        "text",
        "Of the log: lines of text, or one JSON object per line with time, level, event and case; "
        "without --log, JSON lines replace what is printed on standard error.",
        choices=lambda: LOG_FORMATS,
    )
    config: Path | None = option(
        None,
        "File with defaults of options, instead of the delineate.toml of this folder, of a parent "
        "or of the user.",
    )
    no_config: bool = option(False, "Use no file with defaults.", "--no-config")


@dataclass(frozen=True, kw_only=True)
class ReadingOptions:
    """How images are read."""

    untrusted: bool = option(
        False,
        "Read images in a process with limits of memory and time, which a damaged or hostile file "
        "can end without ending the command; starting it takes about a second.",
        "--untrusted",
    )


@dataclass(frozen=True, kw_only=True)
class SeriesOptions:
    """How DICOM series are read."""

    fix_series: str | None = option(
        None,
        "Of DICOM series with uneven gaps, which are refused by default: run keeps the largest "
        "even run of slices, split reads each run as a volume, fill interpolates missing slices.",
        choices=lambda: ("run", "split", "fill"),
    )


@dataclass(frozen=True, kw_only=True)
class ArchiveOptions:
    """How archives (PACS) are asked, and what is sent to them."""

    send: bool = option(
        False,
        "Send the DICOM objects of each scan (a SEG if none is asked for) to the archive that the "
        "scan came from.",
        "--send",
    )
    send_to: str | None = option(
        None,
        "Send them to another archive: dicomweb:URL or dimse:AE@host:port.",
        metavar="ADDRESS",
    )
    ae_title: str = option("DELINEATE", "AE title of this program, for dimse:.", metavar="TITLE")
    receive_port: int | None = option(
        None,
        "Receive from dimse: by C-MOVE on this port, instead of by C-GET; the archive must know "
        "the AE title with this machine and port.",
        low=1,
        high=65535,
    )


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """Where the cases of a command are computed, and which of them (``execution.executor``)."""

    shard: str | None = option(None, SHARD, metavar="N/OF")
    engine: str = option("local", ENGINE, metavar="local|ray[://HOST:PORT]")
    case_timeout_s: float | None = option(
        None,
        "Time that one case may take, such as 10m; one that takes longer is ended, tried three "
        "times in all, and then a failure, while the others go on.",
        "--case-timeout",
        parse=parsing.parse_duration,
    )
    case_memory_bytes: int | None = option(
        None,
        "Memory that the process of a worker may allocate, such as 8G; a case that needs more is "
        "ended and tried as one that takes too long.",
        "--case-memory",
        parse=parsing.parse_bytes,
    )

    @property
    def work(self) -> Work:
        """Raises UsageError if the engine or the shard is unknown, a limit is none that a case can
        hold, or the package of the engine is missing.
        """
        from ..execution.executor import Work
        from ..execution.local import Limits

        limits = Limits(self.case_timeout_s, self.case_memory_bytes)
        return Work.parsed(self.engine, self.shard, limits)


@dataclass(frozen=True, kw_only=True)
class LabelObjectOptions:
    """How DICOM segmentations and structure sets are written."""

    seg_type: str = option(
        "BINARY",
        "Type of a DICOM SEG: BINARY; LABELMAP, which newer programs read; or FRACTIONAL, the "
        "probabilities that predict computes, else 0 and 1.",
        choices=lambda: ("BINARY", "LABELMAP", "FRACTIONAL"),
    )
    seg_syntax: str = option(
        "explicit",
        "Of a DICOM SEG: explicit is not compressed; deflated is, as a whole; rle is, frame by "
        "frame (not BINARY).",
        choices=lambda: ("explicit", "deflated", "rle"),
    )
    smallest_mm2: float = option(
        0.0,
        "Of an RTSTRUCT: leave out contours of a smaller area in mm2, such as single pixels.",
        "--smallest",
        low=0,
    )

    @property
    def seg_encoding(self) -> SegEncoding:
        """Type and transfer syntax. Raises UsageError if they are unknown or exclude each other."""
        from ..formats.dicom.seg import SegEncoding

        return SegEncoding(self.seg_type.upper(), self.seg_syntax.lower())


def reads_images(command: Callable[Given, Result]) -> Callable[Given, Result]:
    """Decorate a command whose ``options`` are ``ReadingOptions``, so that they apply to it."""
    signature = inspect.signature(command)

    @functools.wraps(command)
    def reading(*args: Given.args, **keywords: Given.kwargs) -> Result:
        from ..formats import apart

        options = signature.bind(*args, **keywords).arguments.get("options", ReadingOptions())
        with apart.untrusted(options.untrusted):
            return command(*args, **keywords)

    return reading


@dataclass(frozen=True, kw_only=True)
class CohortOptions(SeriesOptions):
    """How the cases of a folder are found."""

    layout: str | None = option(
        None,
        "Name of the layout, if several fit (see docs/reference/layouts.md).",
        choices=registered("LAYOUTS"),
    )
    description: AnyPath | None = option(
        None, "YAML file that describes your own layout (draft one with `check --draft`)."
    )
    labels: AnyPath | None = option(None, "YAML file that names, merges or selects structures.")
    patient: str | None = option(
        None, "Regular expression with one group that finds the patient in a case id."
    )
    ignore: tuple[int, ...] = option(
        (), IGNORE, metavar="VALUE", parse=parsing.parse_whole_numbers, repeated=True
    )
    modality: str | None = option(
        None, "Use only the cases of this modality, such as CT, MR or PT, of a cohort with several."
    )
    unit: str | None = option(
        None,
        "suv: read PET channels as standardised uptake value by body weight (g/ml); `predict` then "
        "does so too.",
    )
    register_by: str | None = option(None, REGISTER_BY, choices=lambda: ("frame", "position"))


def found_by(options: CohortOptions) -> dict[str, Any]:
    """The arguments of ``cohorts.discovery.layouts.discover``."""
    return {one.name: getattr(options, one.name) for one in fields(CohortOptions)}


def given_options(options: Any) -> dict[str, Any]:
    """The options that differ from their defaults, as data for a record."""
    given = {one.name: (getattr(options, one.name), one.default) for one in fields(options)}
    return {
        name: str(value) if isinstance(value, Path) else value
        for name, (value, default) in given.items()
        if value != default
    }


@dataclass(frozen=True, kw_only=True)
class CheckOptions(ReadingOptions, CohortOptions, EngineOptions):
    """``delineate check``.

    >>> CheckOptions(patient="(p[0-9]+)_.*", workers=2).layout is None
    True
    """

    fix: AnyPath | None = option(
        None,
        "Write repaired copies of the cohort to this folder, with changes.json; originals are "
        "never changed.",
    )
    workers: int | None = option(None, WORKERS)
    split: AnyPath | None = option(None, SPLIT, metavar="RATIO|FILE", parse=str)
    seed: int = option(0, "Seed of --split with a ratio.")
    overwrite: bool = option(False, REPLACE, "--overwrite")


@dataclass(frozen=True, kw_only=True)
class PlanOptions(ReadingOptions, CohortOptions):
    """``delineate plan``.

    >>> PlanOptions(budget_s=600.0).device
    'auto'
    """

    budget_s: float | None = option(
        None,
        "Time for training, such as 10m or 2h.",
        "--budget",
        parse=parsing.parse_duration,
    )
    epochs: int | None = option(None, "Number of epochs, instead of a budget.")
    dims: int | None = option(None, DIMS)
    recipe: str | None = option(
        None,
        "A published system to reproduce, such as liver-ct-unet3d (`delineate recipes` lists all).",
        choices=registered("RECIPES"),
    )
    device: str = option("auto", DEVICE, choices=lambda: DEVICES)
    seed: int = option(0, SEED)
    split: AnyPath | None = option(None, SPLIT, metavar="RATIO|FILE", parse=str)
    changes: tuple[str, ...] = option(
        (),
        "One field of the plan, by its path in plan.json, such as loss.focal=1; may be repeated.",
        "--set",
        metavar="FIELD=VALUE",
        repeated=True,
    )
    overwrite: bool = option(False, REPLACE, "--overwrite")


@dataclass(frozen=True, kw_only=True)
class TrainOptions(PlanOptions, EngineOptions):
    """``delineate train``.

    Args:
        network, loss, listeners: names of registered parts; in Python also the function or class
            itself, which is registered under its full name (see ``extend``).

    >>> TrainOptions(budget_s=600.0, folds=5).overwrite
    False
    """

    budget_s: float | None = option(
        None,
        "Time for everything, such as 10m or 2h: network, patch and schedule are chosen to fit.",
        "--budget",
        parse=parsing.parse_duration,
    )
    at_most_s: float | None = option(
        None,
        "End when the steps that are wanted for --budget are done, at the latest after this time: "
        "for a slow or busy machine.",
        "--at-most",
        parse=parsing.parse_duration,
    )
    epochs: int | None = option(
        None,
        "Number of epochs, instead of a budget (a resumed run is bit-exact); 1000 without either.",
    )
    deterministic: bool = option(
        False,
        "Equal weights if this command is repeated on this machine with as many threads, on any "
        "number of --devices; with --epochs only. Slower.",
        "--deterministic",
    )
    plan: AnyPath | None = option(None, "A plan to use, instead of a derived one.")
    fold: int | None = option(None, "Train only this fold (from 0).")
    folds: int | None = option(
        None,
        "Number of folds, by patient; all are trained and averaged, unless --fold selects one.",
    )
    init: AnyPath | None = option(None, "A model to start from: all its weights that fit are used.")
    overwrite: bool = option(
        False, "Start from scratch if there is a run or a model already.", "--overwrite"
    )
    extend_s: float | None = option(
        None,
        "Continue a finished run for this long, such as 30m (repeat the original command with "
        "this option).",
        "--extend",
        parse=parsing.parse_duration,
    )
    network: str | Callable[..., Any] | None = option(
        None,
        "A registered network, instead of the rules' U-Net (see docs/how-to/extend-network.md).",
        parse=str,
        choices=registered("NETWORKS"),
    )
    loss: str | Callable[..., Any] | None = option(
        None,
        "A registered loss term to add with weight 1, or NAME=WEIGHT.",
        metavar="NAME",
        parse=str,
        choices=registered("LOSSES"),
    )
    listeners: tuple[str | Callable[..., Any], ...] = option(
        (),
        "Also send the figures to tensorboard (MODEL.run/fold_K/tensorboard), mlflow, wandb or a "
        "registered listener; may be repeated.",
        "--listener",
        choices=registered("LISTENERS"),
        metavar="NAME",
        repeated=True,
    )
    licence: str | None = option(
        None,
        "Licence of the weights, such as CC-BY-4.0, for the model's card; by default that of the "
        "data.",
        metavar="TEXT",
    )
    tensorboard: bool = option(False, "The same as --listener tensorboard.", "--tensorboard")
    devices: int = option(
        1,
        "Number of GPUs, or with --device cpu of processes, of this machine or of each node; they "
        "share every batch, and the losses are those of one.",
        metavar="N",
    )
    nodes: int = option(
        1,
        "Number of machines, each with --devices: the same command on all of them, by torchrun or "
        "srun.",
        metavar="M",
    )
    workers: int | None = option(
        None,
        "Number of networks (folds, views) that are trained at the same time, each by a process "
        "of its own; by default 1, and with --engine ray as many as the cluster has machines, or "
        "GPUs.",
        metavar="N",
        low=1,
    )


@dataclass(frozen=True, kw_only=True)
class PredictOptions(
    ReadingOptions, SeriesOptions, LabelObjectOptions, ArchiveOptions, EngineOptions
):
    """``delineate predict``; each field differs from what the model's plan says.

    Args:
        mirror: None mirrors if the plan says so.
        coarse: None follows the plan; True refuses a model that has no coarse pass.
        overlap: None is that of the plan, which training has measured.
        form: ending of a format that can be written, without its first dot; kinds of DICOM objects;
            or both, with commas (see ``mask_form`` and ``objects``).
        views: names; () uses all views of the model.
        samples: the seed of each one follows from ``seed``, the case id and the sample's number.
        ram_bytes, vram_bytes: for the process and its GPU, from reading to the written file; None
            sets no limit.
        probabilities: (I, J, K, structures + 1), the background first.
        channels: channel of the model -> its file (then without other inputs), or its name in the
            inputs.
        only: "train", "val" or "test": only this part of a cohort with a split.
        again: by default the results of an earlier call that are complete, and were made by the
            same model and options from the same bytes, are kept.

    >>> PredictOptions(mirror=True, samples=5).form
    'nii.gz'
    >>> options = PredictOptions(form="nrrd,sr", rtstruct=True)
    >>> options.mask_form, options.objects
    ('nrrd', ('seg', 'rtstruct', 'sr'))
    """

    device: str = option("auto", DEVICE, choices=lambda: DEVICES)
    mirror: bool | None = option(
        None,
        "Average over mirror images (test-time augmentation): slower, often a little better.",
        "--mirror/--no-mirror",
    )
    overlap: float | None = option(
        None,
        "Fraction of their size that neighbouring windows share at least, such as 0.25: less is "
        "faster. By default the model's own, the least that cost no accuracy on validation cases.",
        metavar="FRACTION",
    )
    coarse: bool | None = option(
        None,
        "Run windows only where a small network, at a low resolution, finds structures. By default "
        "where a training measured that this costs no accuracy; never with probabilities or "
        "samples.",
        "--coarse/--no-coarse",
    )
    form: str = option(
        "nii.gz",
        "Of the masks: nii.gz, nii, nrrd, mha, png or that of a registered format. With it or "
        "alone, DICOM objects of each DICOM series: seg, rtstruct (contours), sr (measurements), "
        "pm (probabilities and uncertainty), kos (slices for review), sc (overview page).",
        "--format",
        metavar="FORMAT,...",
        choices=prediction_formats,
    )
    dicom_seg: bool = option(False, "Short for --format seg.", "--dicom-seg")
    rtstruct: bool = option(False, "Short for --format rtstruct.", "--rtstruct")
    views: tuple[str, ...] = option(
        (),
        "Use only these views of a model that averages several, such as axial or axial,coronal.",
        parse=parsing.parse_lower_names,
    )
    oblique_deg: float = option(
        0.0,
        "2-D models: also segment planes tilted by this angle, in four directions, and average; "
        "five times as slow.",
        "--oblique",
        metavar="DEGREES",
    )
    samples: int = option(
        0,
        "Number of Monte-Carlo dropout samples per case; their agreement is written to "
        "OUT/uncertainty.csv.",
        metavar="N",
    )
    maps: tuple[str, ...] = option(
        (),
        "With --samples: also write OUT/entropy/CASE.nii.gz (entropy of the mean probabilities, in "
        "nats) and OUT/sd/CASE.nii.gz (standard deviation of the probabilities).",
        metavar="entropy,sd",
        parse=parsing.parse_lower_names,
    )
    seed: int = option(0, "Seed of the samples.")
    allow_missing: bool = option(
        False,
        "Segment scans that lack a channel too, with a model that was trained with missing "
        "channels.",
        "--allow-missing",
    )
    backend: str = option(
        "auto", "auto (the fastest one available), openvino or torch.", choices=lambda: BACKENDS
    )
    precision: str = option(
        "auto",
        "auto (int8 where a training measured it as equal and the CPU has units for it, else "
        "float), float (half precision if the device has units for it), float32, or int8 with a "
        "model that `train` or `quantise` has calibrated.",
        choices=lambda: PRECISIONS,
    )
    ram_bytes: int | None = option(
        None,
        "Peak RAM limit, such as 4G; a case that needs more is refused.",
        "--ram",
        parse=parsing.parse_bytes,
    )
    vram_bytes: int | None = option(
        None, "Peak GPU memory limit.", "--vram", parse=parsing.parse_bytes
    )
    spool_bytes: int | None = option(
        None,
        "With --engine ray: bytes of scans and results, such as 8G, that may wait between workers "
        "that read, segment and write; without it, there are such workers only where there are "
        "GPUs.",
        "--spool",
        parse=parsing.parse_bytes,
    )
    skip_air: bool = option(
        False,
        "CT only: do not run the network on air more than 3 cm outside the body.",
        "--skip-air",
    )
    montage: str | None = option(
        None,
        "outlined or filled: also draw OUT/montages/CASE.png, three planes with the structures.",
        metavar="STYLE",
        choices=lambda: MONTAGES,
    )
    probabilities: bool = option(
        False,
        "Also write OUT/probabilities/CASE.nii.gz, the probability of each structure in each "
        "voxel; evaluate then reports their calibration.",
        "--probabilities",
    )
    channels: Mapping[str, str] | None = option(
        None,
        "The file of each channel of the model, such as flair=a.nii.gz,t1=b.nii.gz; with INPUT "
        "the name of each channel there, such as flair=t2f.",
        metavar="NAME=FILE,...",
        parse=parsing.parse_channels,
        repeated=True,
    )
    only: str | None = option(None, ONLY, choices=split_names)
    again: bool = option(
        False, "Segment all scans again, also those whose results are complete.", "--again"
    )
    overwrite: bool = option(False, REPLACE, "--overwrite")

    @property
    def forms(self) -> tuple[str, ...]:
        """The words of ``form``."""
        return parsing.parse_lower_names(self.form)

    @property
    def mask_form(self) -> str:
        """The format of the masks."""
        from ..formats.dicom.source import OBJECTS

        return next((form for form in self.forms if form not in OBJECTS), "nii.gz")

    @property
    def objects(self) -> tuple[str, ...]:
        """The kinds of DICOM objects, in the order in which they are written. Measurements refer to
        the segments of a SEG.
        """
        from ..formats.dicom.source import OBJECTS

        asked = {*self.forms, "seg" if self.dicom_seg else "", "rtstruct" if self.rtstruct else ""}
        asked |= {"seg"} if "sr" in asked else set()
        return tuple(kind for kind in OBJECTS if kind in asked)

    @property
    def needs_probabilities(self) -> bool:
        """Whether they are computed, for a file of their own or in an object."""
        is_fractional = "seg" in self.objects and self.seg_encoding.kind == "FRACTIONAL"
        return self.probabilities or "pm" in self.objects or is_fractional


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(ReadingOptions, SeriesOptions, EngineOptions):
    """``delineate evaluate``.

    Args:
        labels: names of the values: a file (see ``cohorts.discovery.names.read_label_names``), or
            value -> name; a YAML file selects structures if the truth is the folder of a cohort.
        like, as_stack: see ``evaluation.pairing.pair``.
        surface, percentile, tolerance_mm: see ``metrics.surface``.
        also: groups of metrics, see ``metrics.selection``.
        images: None draws the scans of the cohort, or only masks.
        workers: see ``execution.local.run``.

    >>> EvaluateOptions(labels={1: "liver"}, also=("lesions",)).tolerance_mm
    2.0
    """

    labels: AnyPath | Mapping[int, str] | None = option(
        None, "Names of the label values: YAML, JSON or CSV.", metavar="PATH", parse=Path
    )
    model: AnyPath | None = option(
        None,
        "The model that made the predictions: its structures are selected by name from a truth "
        "with more of them.",
    )
    like: AnyPath | None = option(
        None, "A scan whose geometry is used for folders of slices without geometry."
    )
    ignore: tuple[int, ...] = option(
        (), IGNORE, metavar="VALUE", parse=parsing.parse_whole_numbers, repeated=True
    )
    register_by: str | None = option(None, REGISTER_BY, choices=lambda: ("frame", "position"))
    as_stack: bool | None = option(
        None,
        "Whether a folder of slices is one volume, or each slice is a case.",
        "--as-stack/--as-images",
    )
    surface: str = option(
        "surfels",
        "Distances between surfels (surface elements, weighted by area), voxels (of the edge), "
        "inner_voxels (without the scan's ends), or none.",
        choices=lambda: ("surfels", "voxels", "inner_voxels", "none"),
    )
    percentile: str = option(
        "directed",
        "HD95: directed (the larger of both directions) or pooled (both together).",
        choices=lambda: ("directed", "pooled"),
    )
    tolerance_mm: float = option(
        2.0, "Tolerance of the surface Dice (NSD), in mm.", "--tolerance", metavar="MM"
    )
    also: tuple[str, ...] = option(
        (),
        "Further metrics: lesions, centreline (clDice) or boundary (IoU near the contour); may be "
        "repeated.",
        repeated=True,
        choices=registered("METRICS"),
    )
    pictures: bool = option(
        False,
        "Draw each case: source, truth and prediction side by side, OUT/pictures/CASE.png.",
        "--pictures",
    )
    images: AnyPath | None = option(
        None, "The scans to draw, by case name, if TRUTH does not name them."
    )
    report: bool = option(
        True,
        "Also write OUT/report.html, with pictures of three cases.",
        "--report/--no-report",
    )
    overwrite: bool = option(False, REPLACE, "--overwrite")
    workers: int | None = option(None, WORKERS)


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """``delineate compare``.

    >>> CompareOptions(names=("plain", "augmented"), metric="hd95_mm").per
    'case'
    """

    names: tuple[str, ...] = option(
        (),
        "Names of the runs, such as a,b,c; by default from their paths.",
        parse=parsing.parse_names,
    )
    metric: str = option("dice", "A metric of the scores.")
    labels: tuple[str, ...] = option(
        (), "A structure to compare; may be repeated; by default all.", "--label", repeated=True
    )
    per: str = option(
        "case", "case, slice or patient.", choices=lambda: ("case", "slice", "patient")
    )
    common: bool = option(
        False,
        "Use only cases present in every run (default: error if a run lacks a case).",
        "--common",
    )
    overwrite: bool = option(False, REPLACE, "--overwrite")


@dataclass(frozen=True, kw_only=True)
class ConvertOptions(ReadingOptions, SeriesOptions, LabelObjectOptions, EngineOptions):
    """``delineate convert``.

    Args:
        spacing_mm: (column, row, slice).
        axes: see ``orientation``; the true directions of the stored axes.
        orientation: three letters such as "RAS"; axes are permuted and flipped, voxels keep their
            positions.
        split_slices: consecutive groups along the last axis.
    """

    spacing_mm: tuple[float, ...] = option(
        (),
        "Spacing in mm of slices without geometry, such as 0.5,0.5,2.",
        "--spacing",
        parse=parsing.parse_spacing,
    )
    axes: str | None = option(
        None,
        "True directions of the stored axes, such as ASL, for files that do not state them "
        "(Analyze 7.5, slices).",
    )
    orientation: str | None = option(
        None, "Axis codes of the result, such as RAS; by default as stored."
    )
    series: str | None = option(
        None, "SeriesInstanceUID, or UID/PART, if the folder has several series or volumes."
    )
    joined: bool = option(
        False, "Write volumes of a DICOM series at the same positions as one 4-D volume.", "--4d"
    )
    unit: str = option(
        "", "suv: PET series of DICOM as standardised uptake value by body weight (g/ml)."
    )
    split_slices: int | None = option(
        None,
        "Cut the volume into NAME_00, NAME_01 ... of this many slices; the last may be shorter.",
    )
    merge: bool = option(
        False,
        "Join consecutive volumes (files, or a folder of files) by their positions.",
        "--merge",
    )
    window: tuple[float, float] | None = option(
        None,
        "For PNG and TIFF: lowest and highest intensity, which become black and white, such as "
        "-200,200.",
        metavar="LOW,HIGH",
        parse=parsing.parse_window,
    )
    bits: int = option(16, "8 or 16: of a pixel, with --window.")
    view: str | None = option(
        None,
        "axial, coronal or sagittal: of slices in PNG and TIFF; by default as stored.",
        choices=lambda: ("axial", "coronal", "sagittal"),
    )
    form: str = option(
        "",
        "dicom, png or tiff: of the slices in a folder that is written.",
        "--format",
        choices=lambda: ("dicom", "png", "tiff"),
    )
    modality: str = option(
        "",
        "CT, MR, PT or another one, of DICOM images that are written; by default that of the scan, "
        "of its unit or of --like.",
    )
    like: AnyPath | None = option(
        None,
        "Of DICOM segmentations and structure sets: the image on whose grid the labels are put; by "
        "default the series that they belong to, if it is in their folder or those above. For "
        "NAME.seg.dcm and NAME.rtstruct.dcm: the DICOM series that the masks belong to. For DICOM "
        "images: a series whose patient and study they get.",
    )
    register_by: str | None = option(None, REGISTER_BY, choices=lambda: ("frame", "position"))
    rule: str = option(
        "centre",
        "Of contours (RTSTRUCT): centre: pixels whose centre is inside; area: pixels of which at "
        "least half is.",
        choices=lambda: ("centre", "area"),
    )
    segment: str | None = option(
        None, "Number, name or code (SCT:10200004) of the only segment of a DICOM SEG to convert."
    )
    threshold: float = option(
        0.5, "Of fractional DICOM SEG: share of the maximum from which a voxel is inside."
    )
    shares: bool = option(
        False, "Of fractional DICOM SEG: keep the shares, one channel for each segment.", "--shares"
    )
    deidentify: tuple[str, ...] = option(
        (),
        "basic: DICOM without what identifies the patient, by the basic profile of PS3.15 Annex E. "
        "After it, with commas: dates (moved, not removed), device (station, serial numbers), "
        "descriptors (descriptions and structure names without names and ids), patient (sex, age, "
        "size, weight), pixels (images that may show text, with black areas; else they are "
        "refused). OUTPUT is a folder, or a file made of what is left.",
        metavar="basic[,OPTION...]",
        parse=parsing.parse_lower_names,
    )
    key: AnyPath | None = option(
        None,
        "File with the secret of --deidentify: the same key gives the same new ids. By default the "
        "variable DELINEATE_DEIDENTIFY_KEY, else a key of this user, made at the first use.",
    )
    pseudonyms: AnyPath | None = option(
        None,
        "CSV file for --deidentify with a line of titles and two columns, patient id and new id; "
        "by default new ids follow from the key.",
    )
    blacken: tuple[tuple[int, int, int, int], ...] = option(
        (),
        "Area that --deidentify basic,pixels makes black in images that may show text, in pixels; "
        "may be repeated.",
        metavar="LEFT,TOP,RIGHT,BOTTOM",
        parse=parsing.parse_rectangles,
        repeated=True,
    )
    overwrite: bool = option(
        False,
        "Replace an existing file, unless it is an input; an earlier result of the same conversion "
        "is always replaced.",
        "--overwrite/--no-overwrite",
    )


@dataclass(frozen=True, kw_only=True)
class ExportSlicesOptions(ReadingOptions, CohortOptions):
    """``delineate export-slices``.

    Args:
        bits: None writes 16 bits, and arrays with the values as they are.

    >>> ExportSlicesOptions(views=("axial",), window=(-200, 200), bits=8).form
    'png'
    """

    views: tuple[str, ...] = option(
        ("axial",),
        "axial, coronal and sagittal, or some of them: axial by default.",
        "--view",
        metavar="NAME,...",
        parse=parsing.parse_lower_names,
    )
    window: tuple[float, float] | None = option(
        None,
        "Lowest and highest intensity, which become black and white, such as -200,200; by default "
        "the values as they are if they fit, else from the lowest to the highest of each scan.",
        metavar="LOW,HIGH",
        parse=parsing.parse_window,
    )
    bits: int | None = option(
        None, "8 or 16: of a pixel; 16 by default, and for npy the type of the scan."
    )
    masks: str = option(
        "index",
        "index (the values of the structures), grey (spread evenly up to white) or colour.",
        choices=lambda: ("index", "grey", "colour"),
    )
    form: str = option(
        "png", "png, npy or tiff.", "--format", choices=lambda: ("png", "npy", "tiff")
    )
    split: AnyPath | None = option(None, SPLIT, metavar="RATIO|FILE", parse=str)
    seed: int = option(0, "Seed of --split with a ratio.")
    overwrite: bool = option(False, "Replace an earlier export.", "--overwrite")
    workers: int | None = option(None, WORKERS)


@dataclass(frozen=True, kw_only=True)
class MergeSlicesOptions:
    """``delineate merge-slices``.

    >>> MergeSlicesOptions(masks="predicted", view="axial").form
    'nii.gz'
    """

    masks: AnyPath | None = option(
        None,
        "A folder of masks with the names of the exported slices, such as predictions: they are "
        "merged instead of the scans.",
    )
    kind: str | None = option(
        None,
        "How --masks shows the structures: index, grey or colour; by default index if all values "
        "are those of structures, else as the export.",
        "--values",
        choices=lambda: ("index", "grey", "colour"),
    )
    view: str | None = option(None, "The view to merge; by default the only one, or the first.")
    form: str = option(
        "nii.gz",
        "nii.gz, nii, nrrd, mha or that of a registered format.",
        "--format",
        choices=prediction_formats,
    )
    overwrite: bool = option(False, "Replace existing files.", "--overwrite")
    workers: int | None = option(None, WORKERS)


@dataclass(frozen=True, kw_only=True)
class InfoOptions(ReadingOptions):
    """``delineate info``."""


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """``delineate import``."""

    checkpoint: str = option("checkpoint_final.pth", "Checkpoint file of each fold.")
    folds: tuple[int, ...] = option(
        (), "Only these folds, such as 0,1; by default all.", parse=parsing.parse_folds
    )
    axes: str | None = option(
        None,
        "Directions of the axes of all training scans, such as RAS for TotalSegmentator, if they "
        "were the same: scans are then reoriented. By default each scan's own, as in nnU-Net.",
    )
    licence: str | None = option(
        None,
        "Licence of the weights, for the model's card; by default that of dataset.json.",
        metavar="TEXT",
    )
    overwrite: bool = option(False, REPLACE, "--overwrite")


@dataclass(frozen=True, kw_only=True)
class QuantiseOptions:
    """``delineate quantise``.

    Args:
        cases: drawn by ``seed``; the cost is measured on all others, or on the same scans if there
            are fewer others.
    """

    truth: AnyPath | None = option(
        None,
        "Reference masks of the scans, as for evaluate; by default those of INPUT if it is one "
        "cohort.",
    )
    only: str | None = option(None, ONLY, choices=split_names)
    cases: int = option(
        8,  # if there are as many others to measure on
        "Number of calibration scans; the others measure the loss of accuracy.",
        metavar="N",
    )
    seed: int = option(0, "Random seed for choosing the calibration scans.")
    overwrite: bool = option(False, REPLACE, "--overwrite")


@dataclass(frozen=True, kw_only=True)
class DownloadOptions:
    """``delineate download``.

    >>> DownloadOptions(only=("disc1",)).keep_archives
    False
    """

    only: tuple[str, ...] = option(
        (),
        "Part of a data set of several files, such as disc1 or disc1,disc2.",
        parse=parsing.parse_names,
    )
    mirror: str = option(
        "",
        "Address of a folder with the same files, to use instead of the publisher's.",
        "--from",
        metavar="URL",
    )
    keep_archives: bool = option(
        False, "Keep the archives next to their unpacked files.", "--keep-archives"
    )


@dataclass(frozen=True, kw_only=True)
class PhantomOptions:
    """``delineate phantom``."""

    patients: int = option(20, "Number of patients.")
    form: str = option(
        "dicom",
        "dicom (CT series and PNG masks), nifti, volumes (TrainVolumes, TrainSegmentation, "
        "TestVolumes, TestSegmentation), chaos-mr (T1 in and out of phase, PNG masks) or ircadb "
        "(CT and one mask series per organ).",
        "--format",
        choices=lambda: ("dicom", "nifti", "volumes", "chaos-mr", "ircadb"),
    )
    organs: tuple[str, ...] = option(
        (),
        "Organs in the masks, such as liver or liver,spleen; by default all four.",
        parse=parsing.parse_names,
    )
    seed: int = option(0, SEED)


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """``delineate demo``."""

    budget_s: float = option(
        300.0,
        "Time for which the training is planned, such as 5m (the default).",
        "--budget",
        parse=parsing.parse_duration,
    )
    at_most_s: float = option(
        780.0,
        "Time that the training may take on a slow or busy machine until it has the steps that it "
        "wants: 13m by default.",
        "--at-most",
        parse=parsing.parse_duration,
    )
    patients: int = option(
        20, "Number of patients of the phantom cohort; a quarter is kept for testing."
    )
    seed: int = option(0, SEED)
    device: str = option("auto", DEVICE, choices=lambda: DEVICES)


@dataclass(frozen=True, kw_only=True)
class CleanOptions:
    """``delineate clean``."""

    yes: bool = option(False, "Delete without asking; needed if no terminal can ask.", "--yes")


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions:
    """``delineate benchmark``."""

    device: str = option("auto", DEVICE, choices=lambda: DEVICES)
    overwrite: bool = option(False, REPLACE, "--overwrite")


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """``delineate report``.

    >>> ReportOptions(interactive=True).interactive
    True
    """

    interactive: bool = option(
        False,
        "Add the worst cases as volumes to scroll through (some MB).",
        "--interactive",
    )
    overwrite: bool = option(False, REPLACE, "--overwrite")


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """``delineate serve``.

    Args:
        memory_bytes: of the whole process; None is a quarter of the machine's.

    >>> ServeOptions(idle_s=60.0).memory_bytes is None
    True
    """

    idle_s: float = option(
        600.0,
        "End after this time without a call, such as 10m or 8h; 10m by default.",
        "--idle",
        metavar="TIME",
        parse=parsing.parse_duration,
    )
    memory_bytes: int | None = option(
        None,
        "Drop the models that were used longest ago while the process has more than this, such as "
        "4G; a quarter of the machine's memory by default.",
        "--memory",
        metavar="SIZE",
        parse=parsing.parse_bytes,
    )


@dataclass(frozen=True, kw_only=True)
class ViewOptions(ReadingOptions):
    """``delineate view``.

    >>> ViewOptions(browser=False).port
    0
    """

    labels: AnyPath | None = option(
        None,
        "Names of the masks' values: YAML, JSON or CSV; by default from the predictions.json next "
        "to them.",
    )
    port: int = option(0, "Port on 127.0.0.1; by default a free one.", low=0, high=65535)
    browser: bool = option(
        True, "Open the page, or only print its address.", "--browser/--no-browser"
    )
