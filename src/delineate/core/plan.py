"""Plan: all settings that determine a run, as typed data a person can read, edit and pass back.

A plan is one JSON file. Unknown keys are refused, values are checked, and nothing in it names code
to import. A network can be rebuilt from its plan without data. The axis order of every triple is
that of the preprocessed array (I, J, K), which runs along ``orientation``. A 2-D plan uses slices
along the last axis, K: its patch is (I, J, 1), and its spacing along K is not changed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    model_validator,
)

from . import atomic
from .errors import PlanError
from .inputs import ChecksumError, parse_json, read_text
from .labels import MOST_OVERLAPPING, LabelSet
from .progress import Say
from .schema import migrate
from .volume import ReadAs

Triple = tuple[int, int, int]
Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
_PLANES = {
    "L": "sagittal",
    "R": "sagittal",
    "A": "coronal",
    "P": "coronal",
    "S": "axial",
    "I": "axial",
}


class Part(BaseModel):
    """A frozen part of a plan that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Normalisation(Part):
    """How raw values become the network's input; training and prediction use the same rule.

    ``window``: clip to low..high, then (x - mean) / std with the stated mean and std (CT: one scale
    for all images). ``robust``: per image, clip to two percentiles of the voxels ``inside``, then
    zero mean and unit standard deviation there. ``standard``: per image, zero mean and unit
    standard deviation of the voxels ``inside``, without clipping; voxels outside become 0 (Isensee
    2021). ``range``: per image, the lowest value becomes 0 and the highest 1. ``none``: values are
    not changed.

    ``inside`` "nonzero" means voxels that differ from the background. The background is the value
    that all corners share, or 0 if they differ.
    """

    kind: Literal["window", "robust", "standard", "range", "none"] = "robust"
    low: float = 0.0
    high: float = 0.0
    mean: float = 0.0
    std: Positive = 1.0
    low_percentile: Annotated[float, Field(ge=0, lt=50)] = 0.5
    high_percentile: Annotated[float, Field(gt=50, le=100)] = 99.5
    inside: Literal["all", "nonzero"] = "all"

    @model_validator(mode="after")
    def _window_is_wide(self) -> Normalisation:
        if self.kind == "window" and self.high <= self.low:
            raise ValueError(f"a window needs low < high, found {self.low}..{self.high}")
        return self


class Channel(Part):
    """One input channel, in order; with ``unit`` "suv" its PET series are read as SUV by body
    weight.
    """

    name: str
    unit: ReadAs = ""
    normalise: Normalisation = Normalisation()


class Structure(Part):
    """One output structure; the JSON form of a ``Label``."""

    value: Annotated[int, Field(gt=0, le=65535)]
    name: str
    colour: tuple[int, int, int]
    code: str = ""
    side: Literal["left", "right"] | None = None
    parts: tuple[int, ...] = ()


class Network(Part):
    """The kind of network and its size. Stage 0 has full resolution; each of ``strides`` leads to
    the next stage.

    Each kind is described in its own file of ``networks``:
    ``unet`` (Ronneberger 2015; Çiçek 2016; Isensee 2021) has a plain or residual encoder, with
    strided convolutions or pooling. Its encoder ``resnet`` (Isensee 2024) has a stem and ``convs``
    residual blocks of two convolutions per stage. The decoder has ``decoder_convs`` convolutions
    per stage, if this differs from ``convs``.
    ``denseunet`` (Li 2018) has dense blocks (Huang 2017) of ``convs`` layers with ``growth``, from
    stage 2 on. ``widths`` and ``kernels`` are those of the decoder from stage 0 on and, as the last
    value, those of the stem, which is the first convolution.
    ``vnet`` (Milletari 2016) has residual stages of ``convs`` convolutions, the same on the way
    down and up.
    ``quicknat`` (Roy 2019) has dense blocks of ``convs`` convolutions, unpooling by index, and
    ``squeeze`` and excitation (Roy 2018).
    Any other kind is registered (``extend.NETWORKS``) and may use all settings; ``settings`` are
    its own.

    ``convs`` is one number, or one per stage (``denseunet``: per dense block). ``dropout`` drops
    single values, in ``quicknat`` whole feature maps. A setting that a kind does not use must keep
    its default, so that a plan never states what does not happen. Only a ``unet`` has deep
    supervision.
    """

    OWN_KINDS: ClassVar[tuple[str, ...]] = ("unet", "denseunet", "vnet", "quicknat")

    kind: Annotated[str, Field(pattern=r"^[\w.-]+$")] = "unet"
    dims: Literal[2, 3]
    channels: Annotated[int, Field(ge=1)]
    classes: Annotated[int, Field(ge=1)]  # includes background, unless classes are overlapping
    widths: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=2)]
    strides: tuple[Triple, ...]
    kernels: tuple[Triple, ...]
    convs: Annotated[int, Field(ge=1, le=64)] | tuple[Annotated[int, Field(ge=1, le=64)], ...] = 2
    decoder_convs: (
        Annotated[int, Field(ge=1, le=64)] | tuple[Annotated[int, Field(ge=1, le=64)], ...] | None
    ) = None  # from stage 0 on
    encoder: Literal["plain", "residual", "resnet"] = "plain"
    down: Literal["stride", "pool"] = "stride"  # how a unet reaches its next stage
    growth: Annotated[int, Field(ge=1)] = 32  # feature maps added by each dense layer
    squeeze: Literal["none", "channel", "spatial", "both"] = "none"
    norm: Literal["instance", "batch", "group"] = "instance"
    activation: Literal["leaky_relu", "relu", "prelu"] = "leaky_relu"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    overlapping: bool = False  # a sigmoid for each class by itself, and no background class
    deep_supervision: bool = True  # False by default for every kind but unet
    settings: dict[str, JsonValue] = {}  # of a registered kind

    @model_validator(mode="before")
    @classmethod
    def _only_a_unet_is_deeply_supervised(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("kind", "unet") != "unet":
            return {"deep_supervision": False} | given
        return given

    @model_validator(mode="after")
    def _stages_agree(self) -> Network:
        """Check that widths, strides, kernels and convolutions describe the same stages."""
        if len(self.strides) != len(self.widths) - 1 or len(self.kernels) != len(self.widths):
            raise ValueError(
                f"{len(self.widths)} widths need {len(self.widths) - 1} strides and "
                f"{len(self.widths)} kernels, "
                f"found {len(self.strides)} and {len(self.kernels)}"
            )
        if any(n < 1 for s in self.strides for n in s) or any(
            n < 1 or n % 2 == 0 for k in self.kernels for n in k
        ):
            raise ValueError(
                f"strides must be 1 or more and kernels odd, found {self.strides} and "
                f"{self.kernels}"
            )
        if self.dims == 2 and any(s[2] != 1 for s in (*self.strides, *self.kernels)):
            raise ValueError("a 2-D network needs stride 1 and kernel 1 along the last axis")
        if self.kind == "denseunet" and len(self.widths) < 4:
            raise ValueError(
                "a denseunet needs at least 4 widths: two of the decoder, one next to a dense "
                f"block, and the stem's; found {self.widths}"
            )
        self._check_convs()
        return self

    def _check_convs(self) -> None:
        # A denseunet has no dense block at stages 0 and 1.
        blocks = len(self.widths) - (2 if self.kind == "denseunet" else 0)
        if isinstance(self.convs, tuple) and len(self.convs) != blocks:
            raise ValueError(
                f"convs must be one number, or one for each of {blocks} "
                f"{'dense blocks' if blocks < len(self.widths) else 'stages'}, found {self.convs}"
            )
        if (
            isinstance(self.decoder_convs, tuple)
            and len(self.decoder_convs) != len(self.widths) - 1
        ):
            raise ValueError(
                f"decoder_convs must be one number, or one for each of {len(self.widths) - 1} "
                f"stages, found {self.decoder_convs}"
            )

    @model_validator(mode="after")
    def _has_classes(self) -> Network:
        if self.classes < 2 and not self.overlapping:
            raise ValueError(
                f"background and one structure need at least two classes, found {self.classes}"
            )
        return self

    @model_validator(mode="after")
    def _unused_settings_are_default(self) -> Network:
        if self.kind not in self.OWN_KINDS:
            return self
        # Setting -> the only kind that uses it. The default of deep supervision depends on the
        # kind, see ``_only_a_unet_is_deeply_supervised``.
        only = dict.fromkeys(("encoder", "decoder_convs", "down", "deep_supervision"), "unet") | {
            "growth": "denseunet",
            "squeeze": "quicknat",
            "settings": "registered kind",
        }
        for name, kind in only.items():
            default = False if name == "deep_supervision" else type(self).model_fields[name].default
            if self.kind != kind and getattr(self, name) != default:
                raise ValueError(
                    f"a {self.kind} has no {name} (only a {kind} has it), found "
                    f"{getattr(self, name)!r}: leave it out"
                )
        if self.kind == "quicknat" and self.dims == 3:
            raise ValueError("a quicknat is a 2-D network")
        if self.kind == "quicknat" and len(set(self.widths)) > 1:
            raise ValueError(
                "a quicknat unpools values to the positions they were pooled from, so all its "
                f"widths must be equal, found {self.widths}"
            )
        return self

    def convs_at(self, stage: int) -> int:
        """Number of convolutions of stage ``stage``; for a denseunet, number of layers of dense
        block ``stage``.
        """
        return self.convs if isinstance(self.convs, int) else self.convs[stage]

    def decoder_convs_at(self, stage: int) -> int:
        """Number of convolutions of a unet's decoder at ``stage``."""
        if self.decoder_convs is None:
            return self.convs_at(stage)
        return (
            self.decoder_convs if isinstance(self.decoder_convs, int) else self.decoder_convs[stage]
        )

    @property
    def divisor(self) -> Triple:
        """The number that a patch must be divisible by, along each axis."""
        total = [1, 1, 1]
        for stride in self.strides:
            total = [t * s for t, s in zip(total, stride, strict=True)]
        return total[0], total[1], total[2]


class Loss(Part):
    """Weighted sum of terms, each explained with its paper in ``training/losses.py``; a term with
    weight 0 is not computed.

    ``dice``, ``generalised_dice`` and ``tversky`` compare structures: ``batch_dice`` sums over the
    batch before dividing, and ``background`` includes class 0. ``squared`` applies only to ``dice``
    and squares the terms of the denominator (Milletari 2016). The other terms are means over
    voxels. Each voxel has the weight of its reference class in ``class_weights`` (background first;
    empty: all 1), plus ``boundary`` if a neighbour has another class. Cross-entropy with these
    weights is the weighted logistic loss (Roy 2019). ``custom`` has the weights of registered terms
    by name (``extend.LOSSES``). With ``ignore``, a target may have voxels whose index is the
    number of classes: their truth is unknown, and they count in no term.
    """

    # All fields are either weights of terms or other settings; see ``_check_fields``.
    TERMS: ClassVar[tuple[str, ...]] = (
        "dice",
        "generalised_dice",
        "tversky",
        "cross_entropy",
        "binary_cross_entropy",
        "focal",
    )
    SETTINGS: ClassVar[tuple[str, ...]] = (
        "batch_dice",
        "squared",
        "background",
        "class_weights",
        "boundary",
        "focal_gamma",
        "tversky_false_positives",
        "tversky_false_negatives",
        "custom",
        "ignore",
    )

    # The terms that compare each structure with the rest of the scan.
    OF_OVERLAPS: ClassVar[tuple[str, ...]] = (
        "dice",
        "generalised_dice",
        "tversky",
        "binary_cross_entropy",
    )

    dice: Annotated[float, Field(ge=0)] = 1.0
    generalised_dice: Annotated[float, Field(ge=0)] = 0.0
    tversky: Annotated[float, Field(ge=0)] = 0.0
    cross_entropy: Annotated[float, Field(ge=0)] = 1.0
    binary_cross_entropy: Annotated[float, Field(ge=0)] = 0.0
    focal: Annotated[float, Field(ge=0)] = 0.0
    batch_dice: bool = True
    squared: bool = False
    background: bool = False
    class_weights: tuple[Positive, ...] = ()
    boundary: Annotated[float, Field(ge=0)] = 0.0
    focal_gamma: Annotated[float, Field(ge=0)] = 2.0
    tversky_false_positives: Fraction = 0.3
    tversky_false_negatives: Fraction = 0.7
    custom: dict[str, Annotated[float, Field(ge=0)]] = {}
    ignore: bool = False

    def unfit_for_overlaps(self) -> list[str]:
        """The terms and settings that structures that overlap cannot have."""
        active = [name for name in self.TERMS if getattr(self, name)]
        active += [name for name, weight in self.custom.items() if weight]
        unfit = [name for name in active if name not in self.OF_OVERLAPS]
        return unfit + (["boundary"] if self.boundary else [])

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        _check_fields(cls)

    @model_validator(mode="after")
    def _something_to_learn(self) -> Loss:
        if not any((*(getattr(self, term) for term in self.TERMS), *self.custom.values())):
            raise ValueError("all loss weights are zero")
        if self.tversky and not self.tversky_false_positives + self.tversky_false_negatives:
            raise ValueError(
                "a tversky loss needs a weight of false positives or false negatives above 0, "
                "found 0 for both"
            )
        return self


def _check_fields(loss: type[Loss]) -> None:
    """Check that each field of ``loss`` is a term or a setting; a forgotten term would never be
    computed.

    Raises:
        TypeError: a field is neither or both, or ``TERMS`` or ``SETTINGS`` name an unknown field.
    """
    declared, fields = (*loss.TERMS, *loss.SETTINGS), loss.model_fields
    for name in dict.fromkeys((*fields, *declared)):
        if name not in fields:
            raise TypeError(f"{loss.__name__} has no field {name!r}, named in TERMS or SETTINGS")
        if (times := declared.count(name)) != 1:
            rule = f"{loss.__name__} must name each field once, in TERMS or in SETTINGS"
            raise TypeError(f"{rule}; found {name!r} {times} times")


_check_fields(Loss)  # pydantic calls the hook only for subclasses


class Optimiser(Part):
    """SGD with momentum (Nesterov's by default), AdamW (Loshchilov 2019), Adam (Kingma 2015; its
    weight decay is an L2 term), or Muon (Jordan 2024, see ``training.optimisers``): sgd, adamw,
    adam or muon; or a registered kind (``extend.OPTIMISERS``), which alone uses ``settings``.

    ``amsgrad`` (Reddi 2018) is for AdamW and Adam. ``clip_norm`` limits the norm of the gradient.
    """

    kind: str = "adamw"
    learning_rate: Positive = 1e-3
    momentum: Fraction = 0.99
    nesterov: bool = True
    amsgrad: bool = False
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    clip_norm: Positive = 12.0
    settings: dict[str, JsonValue] = {}


class Schedule(Part):
    """Length of the training and course of the learning rate: by steps if ``epochs`` is set, by
    wall-clock time if ``budget_s`` is; with ``steps`` too, it ends at the first of both.

    ``step`` multiplies the rate by ``drop_to`` after every ``drop_every`` of the run. The network
    with the best result on the validation cases, by ``best_by``, is kept; it is validated every
    ``validate_every`` epochs (None: about twelve times, evenly spaced). With ``ema`` 0 the trained
    weights themselves are kept, not their moving average. Every ``keep_every`` epochs a copy of the
    weights is kept in a separate file.
    """

    kind: Literal["cosine", "poly", "constant", "step"] = "cosine"
    epochs: Annotated[int, Field(ge=1)] | None = None
    budget_s: Positive | None = None
    steps: Annotated[int, Field(ge=1)] | None = None
    steps_per_epoch: Annotated[int, Field(ge=1)] = 100
    warmup: Fraction = 0.03
    drop_every: Annotated[float, Field(gt=0, le=1)] = 0.5
    drop_to: Annotated[float, Field(gt=0, lt=1)] = 0.1
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.998
    best_by: Literal["dice", "loss"] = "dice"
    validate_every: Annotated[int, Field(ge=1)] | None = None
    keep_every: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _one_end(self) -> Schedule:
        if (self.epochs is None) == (self.budget_s is None):
            raise ValueError(
                "a schedule ends after epochs or at budget_s: set exactly one of the two"
            )
        if self.steps is not None and self.budget_s is None:
            raise ValueError("steps end a schedule early that has a budget_s")
        return self


class Augmentation(Part):
    """Probabilities and ranges per sample; all spatial changes are one resampling step.

    ``rotation_deg`` is about the I, J, K axes and ``scale`` is relative to 1. ``mirror`` lists the
    axes that may be flipped (a flip of the left-right axis swaps the values of left and right
    structures). ``elastic_mm`` is the standard deviation of a smooth displacement. ``oblique_deg``
    tilts the plane of a 2-D plan out of its axis. ``drop_channel_p`` blanks each channel with this
    probability, but never all of them. ``custom`` has the probabilities of registered changes by
    name (``extend.AUGMENTATIONS``), which follow all others.
    """

    rotation_p: Fraction = 0.3
    rotation_deg: tuple[float, float, float] = (15.0, 15.0, 15.0)
    scale_p: Fraction = 0.3
    scale: tuple[Positive, Positive] = (0.75, 1.3)
    oblique_p: Fraction = 0.0
    oblique_deg: Annotated[float, Field(ge=0, le=90)] = 20.0
    elastic_p: Fraction = 0.0
    elastic_mm: Annotated[float, Field(ge=0)] = 3.0
    mirror: tuple[Annotated[int, Field(ge=0, le=2)], ...] = ()
    noise_p: Fraction = 0.15
    noise_std: Annotated[float, Field(ge=0)] = 0.15
    blur_p: Fraction = 0.15
    blur_voxels: tuple[Positive, Positive] = (0.5, 1.2)
    brightness_p: Fraction = 0.2
    brightness: Annotated[float, Field(ge=0)] = 0.2
    contrast_p: Fraction = 0.2
    contrast: tuple[Positive, Positive] = (0.7, 1.4)
    gamma_p: Fraction = 0.25
    gamma: tuple[Positive, Positive] = (0.7, 1.5)
    low_resolution_p: Fraction = 0.15
    low_resolution: tuple[Fraction, Fraction] = (0.5, 1.0)
    drop_channel_p: Annotated[float, Field(ge=0, lt=1)] = 0.0
    custom: dict[str, Fraction] = {}

    @classmethod
    def none(cls) -> Augmentation:
        """No augmentation: all probabilities are 0."""
        return cls.model_validate({name: 0.0 for name in cls.model_fields if name.endswith("_p")})


class Inference(Part):
    """Sliding windows with Gaussian blending: ``overlap`` is the fraction that neighbours share.

    ``mirror`` lists the axes of test-time mirroring. ``average`` decides whether mirrored copies,
    members and windows are averaged as ``probabilities`` or as ``logits``. ``int8``: CPUs with
    hardware for 8-bit integers use them, because that costs almost no accuracy (chosen on
    validation data). ``coarse``: above 0, windows are run only where the first stage of the plan
    finds a structure with at least this probability (see ``inference.coarse``; chosen on
    validation data).
    """

    average: Literal["probabilities", "logits"] = "probabilities"
    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.5
    int8: bool = False
    coarse: Annotated[float, Field(ge=0, lt=1)] = 0.0
    mirror: tuple[Annotated[int, Field(ge=0, le=2)], ...] = ()


class Postprocessing(Part):
    """``keep_largest``: structures that keep only their largest connected component (chosen on
    validation data).
    """

    keep_largest: tuple[str, ...] = ()


class View(Part):
    """One of several 2-D networks that use slices of the same preprocessed grid along different
    axes (Roy 2019).

    ``axis`` is the axis of the preprocessed grid along which it is sliced. ``patch`` is in the axes
    of that grid, 1 along ``axis``. ``weight`` is its weight in the ensemble. With ``merge_sides``
    the network learns "left X" and "right X" as one structure X, because a sagittal slice cannot
    distinguish them, and its vote counts for both.
    """

    axis: Annotated[int, Field(ge=0, le=2)]
    patch: Triple
    weight: Positive = 1.0
    merge_sides: bool = False

    @property
    def order(self) -> Triple:
        """Axes of the preprocessed grid in the order of this view's own arrays, the sliced axis
        last.
        """
        a, b = (n for n in range(3) if n != self.axis)
        return a, b, self.axis


class Plan(Part):
    """All settings that determine a run; see the module docstring for conventions.

    ``orientation``: the direction of each preprocessed axis, such as RAS; or the scan's own axes in
    a given order, such as "kji", whatever their directions. ``crop``: to the bounding box of all
    voxels that differ from the background ("nonzero", as for ``Normalisation``), of all values
    other than 0, without a margin ("not_zero"), or of the body in CT ("body"). ``resampling``:
    "cubic" (Keys 1981, widened for downsampling; linear across thick slices) or "spline" (cubic
    B-splines, never widened; nearest slice across thick ones), as in nnU-Net.

    ``foreground`` is the fraction of patches centred on a structure. With ``network.overlapping``,
    a voxel belongs to each structure with a probability above 0.5. ``output`` is then the form of
    the result: one "label map", in which a voxel gets the last of its structures in the plan's
    order, or a mask of each of the "structures".
    ``reasons`` states why each choice was made. ``low_resolution`` is the plan of a first stage at
    a coarser spacing, used if a volume is far larger than a patch: it finds the part of a scan that
    has structures (``inference.coarse``). In a ``cascade`` the result of that stage is part of the
    network's input instead: one channel of 0 and 1 for each structure, after the channels of the
    scan. ``views``: several 2-D networks instead of one, each trained by the plan
    that ``seen`` returns, with the patch of the view; ``patch`` then belongs to no network.

    >>> plan = Plan.load("plan.json")
    >>> plan.dims, plan.orientation, plan.is_oriented, plan.sided_axis, plan.labels.names
    (3, 'RAS', True, 0, ['left part', 'right part'])
    >>> plan.has_finder
    False
    >>> plan.output_labels == plan.labels, plan.codes
    (True, 3)
    >>> plan.replace(batch=4).batch, Plan.from_json(plan.to_json()) == plan
    (4, True)

    A plan with several views has a 2-D plan for each:

    >>> {name: plan.seen(view).dims for name, view in plan.named_views().items()}
    {}
    """

    delineate_plan: Literal[5] = 5
    recipe: str = ""
    channels: Annotated[tuple[Channel, ...], Field(min_length=1)]
    structures: Annotated[tuple[Structure, ...], Field(min_length=1)]
    orientation: Annotated[str, Field(pattern="^([LRAPSI]{3}|[ijk]{3})$")] = "RAS"
    # None keeps the spacing of each scan.
    spacing_mm: tuple[Positive | None, Positive | None, Positive | None]
    crop: Literal["none", "nonzero", "not_zero", "body"] = "none"
    resampling: Literal["cubic", "spline"] = "cubic"
    patch: Triple
    batch: Annotated[int, Field(ge=1)] = 2
    foreground: Fraction = 0.5
    network: Network
    output: Literal["label map", "structures"] = "label map"
    views: tuple[View, ...] = ()
    loss: Loss = Loss()
    optimiser: Optimiser = Optimiser()
    schedule: Schedule
    augmentation: Augmentation = Augmentation()
    inference: Inference = Inference()
    postprocessing: Postprocessing = Postprocessing()
    seed: int = 0
    reasons: dict[str, str] = {}
    low_resolution: Plan | None = None
    cascade: bool = False

    @model_validator(mode="after")
    def _parts_agree(self) -> Plan:
        """Check what no part can check alone; the first fault is reported."""
        self._check_network()
        self._check_patch()
        known = {s.name for s in self.structures}
        if not set(self.postprocessing.keep_largest) <= known:
            raise ValueError(
                "keep_largest names unknown structures: "
                f"{sorted(set(self.postprocessing.keep_largest) - known)}"
            )
        if any(
            sum(letter in pair for letter in self.orientation) != 1
            for pair in (("LR", "AP", "SI") if self.is_oriented else "ijk")
        ):
            raise ValueError(
                "an orientation needs one letter each of L/R, A/P, S/I, or of i, j, k, found "
                f"{self.orientation}"
            )
        if self.loss.class_weights and len(self.loss.class_weights) != self.network.classes:
            raise ValueError(
                f"{self.network.classes} classes need as many class weights, found "
                f"{len(self.loss.class_weights)}"
            )
        self._check_views()
        self._check_overlaps()
        self._check_coarse()
        return self

    def _check_coarse(self) -> None:
        if not self.inference.coarse:
            return
        if not self.has_finder or self.views or self.inference.average == "logits":
            raise ValueError(
                "inference.coarse needs a 3-D plan with a low_resolution plan of two classes, "
                "without cascade and views, that averages probabilities"
            )

    def _check_overlaps(self) -> None:
        if not self.network.overlapping and self.output == "structures":
            raise ValueError("structures that exclude each other have one label map as output")
        if self.network.overlapping and len(self.structures) > MOST_OVERLAPPING:
            raise ValueError(
                f"at most {MOST_OVERLAPPING} structures may overlap, found {len(self.structures)}"
            )

    def _check_network(self) -> None:
        """Channels and classes of the network fit the scan's channels, the structures and the
        cascade.
        """
        # A cascade adds the result of its first stage, one channel per structure.
        inputs = len(self.channels) + (len(self.structures) if self.cascade else 0)
        if self.network.channels != inputs:
            raise ValueError(
                f"the network has {self.network.channels} input channels, the plan needs {inputs}"
            )
        if self.cascade and (
            self.low_resolution is None
            or self.low_resolution.labels.values != self.labels.values
            or self.views
        ):
            raise ValueError(
                "a cascade needs a low_resolution plan of the same structures, and has no views"
            )
        # Classes that exclude each other include the background.
        needed = len(self.structures) + (0 if self.network.overlapping else 1)
        if self.network.classes != needed:
            background = "" if self.network.overlapping else " and background"
            raise ValueError(
                f"the network has {self.network.classes} classes, {len(self.structures)} "
                f"structures{background} need {needed}"
            )

    def _check_patch(self) -> None:
        if any(p < 1 or p % d for p, d in zip(self.patch, self.network.divisor, strict=True)):
            raise ValueError(
                f"patch {self.patch} is not divisible by the network's strides "
                f"{self.network.divisor}"
            )
        if self.dims == 2 and self.patch[2] != 1:
            raise ValueError(f"a 2-D patch has one voxel along the last axis, found {self.patch}")

    def _check_views(self) -> None:
        if self.views and self.network.overlapping:
            raise ValueError("views need classes that exclude each other, not overlapping ones")
        if self.views and self.inference.average == "logits":
            raise ValueError("views average their probabilities, not logits")
        if self.views and self.dims == 3:
            raise ValueError("views need a 2-D plan")
        if self.views and not self.is_oriented:
            raise ValueError(
                "views are identified by anatomical direction, so they need an orientation such "
                "as RAS"
            )
        # Each view slices its own axis, with a patch that fits its network.
        if len({v.axis for v in self.views}) != len(self.views):
            raise ValueError("two views slice the same axis")
        for view in self.views:
            i, j, k = (view.patch[a] for a in view.order)
            if k != 1 or i % self.network.divisor[0] or j % self.network.divisor[1]:
                raise ValueError(
                    f"the patch {view.patch} of the view along axis {view.axis} must be 1 there "
                    f"and divisible by {self.network.divisor}"
                )

    @property
    def dims(self) -> int:
        """2 or 3."""
        return self.network.dims

    @property
    def labels(self) -> LabelSet:
        """The structures as a label set."""
        overlapping = self.network.overlapping
        return LabelSet.from_json((s.model_dump() for s in self.structures), overlapping)

    @property
    def output_labels(self) -> LabelSet:
        """The structures of a prediction: those of the plan, which overlap only if the output is a
        mask of each, because one label map has one value for each voxel.
        """
        labels = self.labels
        return LabelSet(labels.labels) if self.output == "label map" else labels

    @property
    def codes(self) -> int:
        """Number of states of a voxel in prepared cases (``LabelSet.codes``); the next number marks
        ignored voxels.
        """
        return self.labels.codes

    @property
    def is_oriented(self) -> bool:
        """Whether each preprocessed axis has the same anatomical direction in all scans."""
        return self.orientation.isupper()

    @property
    def sided_axis(self) -> int | None:
        """The axis of the preprocessed array that runs between left and right; None if it differs
        between scans.
        """
        return next((axis for axis, letter in enumerate(self.orientation) if letter in "LR"), None)

    @property
    def has_finder(self) -> bool:
        """Whether ``low_resolution`` finds the part of a scan that has structures, of any kind."""
        stage = self.low_resolution
        return (
            stage is not None
            and not self.cascade
            and self.dims == stage.dims == 3
            and stage.network.classes == 2
            and None not in self.spacing_mm
            and None not in stage.spacing_mm
        )

    def named_views(self) -> dict[str, View]:
        """The views by the name of their plane: axial, coronal, sagittal."""
        return {_PLANES[self.orientation[view.axis]]: view for view in self.views}

    def seen(self, view: View) -> Plan:
        """The plan for the network of one view: a 2-D plan whose last axis is the one that ``view``
        slices.

        All settings per axis are put in the order of the view. With ``merge_sides`` each pair of
        left and right structures becomes one; the weight of the merged class corresponds to the sum
        of both frequencies.
        """
        # New class index of each class, and the structures after merging.
        order = view.order
        table = self.labels.merge_table() if view.merge_sides else np.arange(self.network.classes)
        merged = self.labels.merged() if view.merge_sides else self.labels
        # Class weights are inverse frequencies; the frequencies of merged classes add up.
        weights = self.loss.class_weights and tuple(
            1
            / sum(
                1 / w for w, to in zip(self.loss.class_weights, table, strict=True) if to == index
            )
            for index in range(len(merged) + 1)
        )
        # A flip along the sliced axis would not change any slice, so it is dropped.
        own = {old: new for new, old in enumerate(order[:2])}
        augmentation, inference = self.augmentation.model_dump(), self.inference.model_dump()
        augmentation |= {"rotation_deg": [self.augmentation.rotation_deg[a] for a in order]}
        for part, mirror in (
            (augmentation, self.augmentation.mirror),
            (inference, self.inference.mirror),
        ):
            part["mirror"] = sorted(own[a] for a in mirror if a in own)
        return self.replace(
            orientation="".join(self.orientation[a] for a in order),
            spacing_mm=[self.spacing_mm[a] for a in order],
            patch=[view.patch[a] for a in order],
            structures=[Structure(**d) for d in merged.to_json()],
            network=self.network.model_dump() | {"classes": len(merged) + 1},
            loss=self.loss.model_dump() | {"class_weights": weights},
            augmentation=augmentation,
            inference=inference,
            postprocessing=Postprocessing(),
            views=(),
            low_resolution=None,
            cascade=False,
        )

    def to_json(self) -> str:
        """The text of ``plan.json``; ``from_json`` gives an equal plan."""
        return json.dumps(self.model_dump(mode="json"), indent=1)

    @classmethod
    def from_json(cls, text: str, path: str = "", edited: Say | None = None) -> Plan:
        """The inverse of ``to_json``.

        Args:
            text: of the file.
            path: the file, for messages.
            edited: receives a sentence if the text was edited since ``save`` wrote it; by default
                such a text is refused as damaged.

        Raises:
            PlanError: damaged, not JSON, of a newer schema, an unknown key, or values that exclude
                each other; up to five faults are listed.
        """
        try:
            data = parse_json(text)
        except ChecksumError as error:
            if edited is None:
                raise PlanError(str(error), path=path or None) from error
            edited(f"{path or 'the plan'} was edited after it was written")
            data = parse_json(text, checked=False)
        except ValueError as error:
            raise PlanError(
                f"{'' if path else 'the plan '}is not JSON ({error})", path=path or None
            ) from error
        # Migrate before validation, because validation knows only the current schema.
        if isinstance(data, dict):
            data = migrate("delineate_plan", data, path=path or None, error=PlanError)
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            # One line for the user: the location of each fault and pydantic's message.
            faults = "; ".join(
                f"{'.'.join(map(str, e['loc'])) or 'plan'}: "
                f"{e['msg'].removeprefix('Value error, ')}"
                for e in error.errors()[:5]
            )
            raise PlanError(faults, path=path or None) from error

    @classmethod
    def load(cls, path: str | Path, edited: Say | None = None) -> Plan:
        """Read ``plan.json``; ``edited`` as for ``from_json``.

        Raises:
            InputError: it cannot be read.
            PlanError: as ``from_json``.
        """
        return cls.from_json(read_text(path), str(path), edited)

    def save(self, path: str | Path) -> None:
        """Write ``plan.json`` with a checksum in one step.

        Raises:
            OutputError: it cannot be written.

        >>> plan = Plan.load("plan.json")
        >>> plan.save("copy.json")
        >>> Plan.load("copy.json") == plan
        True
        """
        atomic.write_json(path, self.model_dump(mode="json"))

    def replace(self, **changes: Any) -> Plan:
        """The plan with ``changes``; the result is checked again.

        Raises:
            pydantic.ValidationError: the changed plan is not valid.
        """
        return Plan.model_validate({**self.model_dump(), **changes})
