"""Plan: everything that fixes a run, as typed data a person can read, edit and pass back.

One JSON file. Unknown keys are refused, values are checked, and nothing in it names code to import.
A plan rebuilds the network without data. Axis order of every triple is that of the prepared array
(I, J, K), which runs along ``orientation``. A 2-D plan slices the last axis, K: its patch is (I, J,
1) and its spacing along K is kept.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .errors import InputError, PlanError
from .labels import LabelSet
from .schema import migrate

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
    """How raw values become the network's input; the rule is the same for training and prediction.

    ``window``: clip to low..high, then (x - mean) / std with the stated mean and std (CT: one scale
    for all). ``robust``: per image, clip to two percentiles of the voxels ``inside``, then zero
    mean and unit deviation there. ``standard``: per image, zero mean and unit deviation of the
    voxels ``inside``, unclipped; what is outside becomes 0 (Isensee 2021). ``range``: per image,
    the lowest value to 0 and the highest to 1. ``none``: values as they are.

    ``inside`` "nonzero" means voxels unlike the background: the value that all corners share, 0
    where they differ.
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
    """One input channel, in order."""

    name: str
    normalise: Normalisation = Normalisation()


class Structure(Part):
    """One output structure; the JSON form of a ``Label``."""

    value: Annotated[int, Field(gt=0, le=65535)]
    name: str
    colour: tuple[int, int, int]
    code: str = ""
    side: Literal["left", "right"] | None = None


class Network(Part):
    """Which network, and its sizes; stage 0 has full resolution, ``strides`` are those into each
    later stage.

    The families, each described in its own file of ``nets``:
    ``unet`` (Ronneberger 2015; Çiçek 2016; Isensee 2021), plain or residual encoder, strided or
    pooled; the encoder ``resnet`` (Isensee 2024) has a stem and ``convs`` residual blocks of two
    convolutions a stage; its decoder has ``decoder_convs`` where that is not ``convs``;
    ``denseunet`` (Li 2018): dense blocks (Huang 2017) of ``convs`` layers with ``growth``, from
    stage 2 on; ``widths`` and ``kernels`` are the decoder's from stage 0 on and, last, those of the
    stem, the first convolution; ``vnet`` (Milletari 2016): residual stages of ``convs``
    convolutions, as many down as up; ``quicknat`` (Roy 2019): dense blocks of ``convs``
    convolutions, unpooling by index, ``squeeze`` and excitation (Roy 2018).

    ``convs`` is stated once, or for each stage (``denseunet``: for each dense block). ``dropout``
    drops values, in ``quicknat`` whole feature maps. What a family has no use for must be left at
    its default, so that a plan never says what does not happen; only a ``unet`` is deeply
    supervised.
    """

    kind: Literal["unet", "denseunet", "vnet", "quicknat"] = "unet"
    dims: Literal[2, 3]
    channels: Annotated[int, Field(ge=1)]
    classes: Annotated[int, Field(ge=1)]  # background included, unless they are overlapping
    widths: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=2)]
    strides: tuple[Triple, ...]
    kernels: tuple[Triple, ...]
    convs: Annotated[int, Field(ge=1, le=64)] | tuple[Annotated[int, Field(ge=1, le=64)], ...] = 2
    decoder_convs: (
        Annotated[int, Field(ge=1, le=64)] | tuple[Annotated[int, Field(ge=1, le=64)], ...] | None
    ) = None  # from stage 0 on
    encoder: Literal["plain", "residual", "resnet"] = "plain"
    down: Literal["stride", "pool"] = "stride"  # how a unet reaches its next stage
    growth: Annotated[int, Field(ge=1)] = 32  # feature maps that a dense layer adds
    squeeze: Literal["none", "channel", "spatial", "both"] = "none"
    norm: Literal["instance", "batch", "group"] = "instance"
    activation: Literal["leaky_relu", "relu", "prelu"] = "leaky_relu"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    overlapping: bool = (
        False  # every class by itself (a sigmoid each), without a background among them
    )
    deep_supervision: bool = True  # False where left out for another family than unet

    @model_validator(mode="before")
    @classmethod
    def _only_a_unet_is_deeply_supervised(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("kind", "unet") != "unet":
            return {"deep_supervision": False} | given
        return given

    @model_validator(mode="after")
    def _stages_agree(self) -> Network:
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
                f"strides are 1 or more and kernels are odd, found {self.strides} and "
                f"{self.kernels}"
            )
        if self.dims == 2 and any(s[2] != 1 for s in (*self.strides, *self.kernels)):
            raise ValueError("a 2-D network has stride 1 and kernel 1 along the last axis")
        if self.kind == "denseunet" and len(self.widths) < 4:
            raise ValueError(
                "a denseunet has at least 4 widths: two of the decoder, one beside a dense "
                f"block, the stem's; found {self.widths}"
            )
        blocks = len(self.widths) - (2 if self.kind == "denseunet" else 0)
        if isinstance(self.convs, tuple) and len(self.convs) != blocks:
            raise ValueError(
                f"convs are stated once, or for each of {blocks} "
                f"{'dense blocks' if blocks < len(self.widths) else 'stages'}, found {self.convs}"
            )
        if (
            isinstance(self.decoder_convs, tuple)
            and len(self.decoder_convs) != len(self.widths) - 1
        ):
            raise ValueError(
                f"decoder_convs are stated once, or for each of {len(self.widths) - 1} stages, "
                f"found {self.decoder_convs}"
            )
        return self

    @model_validator(mode="after")
    def _has_classes(self) -> Network:
        if self.classes < 2 and not self.overlapping:
            raise ValueError(
                f"background and a structure are two classes at least, found {self.classes}"
            )
        return self

    @model_validator(mode="after")
    def _says_only_what_happens(self) -> Network:
        only = dict.fromkeys(("encoder", "decoder_convs", "down", "deep_supervision"), "unet") | {
            "growth": "denseunet",
            "squeeze": "quicknat",
        }
        for name, kind in only.items():
            default = False if name == "deep_supervision" else type(self).model_fields[name].default
            if self.kind != kind and getattr(self, name) != default:
                raise ValueError(
                    f"a {self.kind} has no {name} (only a {kind} has), found "
                    f"{getattr(self, name)!r}: leave it out"
                )
        if self.kind == "quicknat" and self.dims == 3:
            raise ValueError("quicknat is a 2-D network")
        if self.kind == "quicknat" and len(set(self.widths)) > 1:
            raise ValueError(
                "quicknat puts values back where the encoder took them, so all its widths are "
                f"equal, found {self.widths}"
            )
        return self

    def convs_at(self, stage: int) -> int:
        """How many convolutions stage ``stage`` has; for a denseunet, how many layers dense block
        ``stage`` has.
        """
        return self.convs if isinstance(self.convs, int) else self.convs[stage]

    def decoder_convs_at(self, stage: int) -> int:
        """How many convolutions the decoder of a unet has on its way up at ``stage``."""
        if self.decoder_convs is None:
            return self.convs_at(stage)
        return (
            self.decoder_convs if isinstance(self.decoder_convs, int) else self.decoder_convs[stage]
        )

    @property
    def divisor(self) -> Triple:
        """What a patch must be divisible by, along each axis."""
        total = [1, 1, 1]
        for stride in self.strides:
            total = [t * s for t, s in zip(total, stride, strict=True)]
        return total[0], total[1], total[2]


class Loss(Part):
    """Weighted sum of terms, each explained with its paper in ``training/losses.py``; a term of
    weight 0 is not computed.

    ``dice``, ``generalised_dice`` and ``tversky`` compare structures: ``batch_dice`` adds up over
    the batch before dividing, and ``background`` lets class 0 count as well; ``squared`` is for
    ``dice`` alone and squares the denominator's terms (Milletari 2016). The other terms are means
    over voxels, each weighing that of its true class in ``class_weights`` (background first; empty:
    all 1) and ``boundary`` more where a neighbour has another class. Cross-entropy so weighted is
    the weighted logistic loss (Roy 2019).
    """

    # The fields that are weights of terms, and the others; see ``_check_fields``.
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

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        _check_fields(cls)

    @model_validator(mode="after")
    def _something_to_learn(self) -> Loss:
        if not any(getattr(self, term) for term in self.TERMS):
            raise ValueError("all loss weights are zero")
        if self.tversky and not self.tversky_false_positives + self.tversky_false_negatives:
            raise ValueError(
                "a tversky loss counts false positives, false negatives or both, found 0 for each"
            )
        return self


def _check_fields(loss: type[Loss]) -> None:
    """Every field of ``loss`` is a term or a setting: a forgotten term would never be computed.

    Raises:
        TypeError: a field is neither or both, or what ``TERMS`` or ``SETTINGS`` name is no field.
    """
    declared, fields = (*loss.TERMS, *loss.SETTINGS), loss.model_fields
    for name in dict.fromkeys((*fields, *declared)):
        if name not in fields:
            raise TypeError(f"{loss.__name__} has no field {name!r}, named in TERMS or SETTINGS")
        if (times := declared.count(name)) != 1:
            rule = f"{loss.__name__} names each field once, in TERMS or in SETTINGS"
            raise TypeError(f"{rule}; found {name!r} {times} times")


_check_fields(Loss)  # pydantic asks it of subclasses alone


class Optimiser(Part):
    """SGD with momentum (Nesterov's unless told otherwise), AdamW (Loshchilov 2019) or Adam (Kingma
    2015), whose weight decay is L2; ``amsgrad`` (Reddi 2018) for the latter two; or Muon (Jordan
    2024), see ``training.optimisers``. ``clip_norm`` bounds the gradient."""

    kind: Literal["sgd", "adamw", "adam", "muon"] = "adamw"
    learning_rate: Positive = 1e-3
    momentum: Fraction = 0.99
    nesterov: bool = True
    amsgrad: bool = False
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    clip_norm: Positive = 12.0


class Schedule(Part):
    """How long, and how the learning rate falls: by steps when ``epochs`` is set, by the clock when
    ``budget_s`` is.

    ``step`` multiplies the rate by ``drop_to`` after every ``drop_every`` of the run. The network
    that is kept does best on the validation cases by ``best_by``; they are scored every
    ``validate_every`` epochs (None: evenly, a dozen times). ``ema`` 0 keeps the trained weights
    themselves, not their average. Every ``keep_every`` epochs the weights are kept in a file of
    their own.
    """

    kind: Literal["cosine", "poly", "constant", "step"] = "cosine"
    epochs: Annotated[int, Field(ge=1)] | None = None
    budget_s: Positive | None = None
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
                "a schedule ends after epochs or at budget_s: exactly one of the two is set"
            )
        return self


class Augmentation(Part):
    """Probabilities and ranges, per sample; all spatial changes happen in one resampling pass.

    ``rotation_deg`` about the I, J, K axes; ``scale`` about 1; ``mirror`` the axes that may be
    flipped (flipping the left-right axis swaps the values of sided structures); ``elastic_mm`` the
    deviation of a smooth displacement. ``oblique_deg`` tilts the plane of a 2-D plan out of its
    axis; ``drop_channel_p`` blanks each channel, never all of them.
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

    @classmethod
    def none(cls) -> Augmentation:
        """Nothing happens to a sample."""
        return cls.model_validate({name: 0.0 for name in cls.model_fields if name.endswith("_p")})


class Inference(Part):
    """Windows: ``overlap`` of neighbours as a fraction; Gaussian blending; test-time mirroring
    along ``mirror``.

    What is averaged over mirror images, members and windows, the ``probabilities`` or the
    ``logits``.
    """

    average: Literal["probabilities", "logits"] = "probabilities"
    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.5
    mirror: tuple[Annotated[int, Field(ge=0, le=2)], ...] = ()


class Postprocessing(Part):
    """Structures of which only the largest connected component is kept (chosen on validation
    data).
    """

    keep_largest: tuple[str, ...] = ()


class View(Part):
    """One of several 2-D networks that look at the same prepared grid along different axes (Roy
    2019).

    ``axis`` of the prepared grid is the one it slices; ``patch`` is in the prepared grid's axes, 1
    along ``axis``; ``weight`` is its weight in the ensemble. ``merge_sides``: it learns "left X"
    and "right X" as one X (a sagittal slice cannot tell them apart) and votes for both.
    """

    axis: Annotated[int, Field(ge=0, le=2)]
    patch: Triple
    weight: Positive = 1.0
    merge_sides: bool = False

    @property
    def order(self) -> Triple:
        """Axes of the prepared grid in the order in which this view's own arrays have them, the
        sliced one last.
        """
        a, b = (n for n in range(3) if n != self.axis)
        return a, b, self.axis


class Plan(Part):
    """Everything that fixes a run; see the module's head for conventions.

    ``orientation``: where the prepared axes point to, such as RAS; or, such as "kji", the scan's
    own axes in that order, whatever they point to. ``crop``: to the box of what differs from the
    background ("nonzero", as for ``Normalisation``), of values other than 0 without any margin
    ("not_zero"), or of the body in CT ("body"). With ``network.overlapping`` a voxel gets the last
    structure, in the plan's order, that is likelier there than not. ``resampling``: "cubic" (Keys
    1981, widened where it shrinks; linear across thick slices) or "spline" (cubic B-splines, never
    widened; the nearest slice across thick ones), which is nnU-Net's way. ``reasons`` says why each
    choice was made; ``low_resolution`` is the plan of a first stage at a coarser spacing, present
    where a volume is far larger than a patch. In a ``cascade`` what that stage found stands among
    the network's inputs, one channel of 0 and 1 for each structure, after the scan's own.
    ``views``: several 2-D networks instead of one, each trained by the plan that ``seen`` gives,
    with the view's own patch; ``patch`` is then that of no network.
    """

    delineate_plan: Literal[1] = 1
    recipe: str = ""
    channels: Annotated[tuple[Channel, ...], Field(min_length=1)]
    structures: Annotated[tuple[Structure, ...], Field(min_length=1)]
    orientation: Annotated[str, Field(pattern="^([LRAPSI]{3}|[ijk]{3})$")] = "RAS"
    # None keeps each scan's own.
    spacing_mm: tuple[Positive | None, Positive | None, Positive | None]
    crop: Literal["none", "nonzero", "not_zero", "body"] = "none"
    resampling: Literal["cubic", "spline"] = "cubic"
    patch: Triple
    batch: Annotated[int, Field(ge=1)] = 2
    foreground: Fraction = 0.5  # share of patches centred on a structure
    network: Network
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
        inputs = len(self.channels) + (len(self.structures) if self.cascade else 0)
        if self.network.channels != inputs:
            raise ValueError(
                f"the network takes {self.network.channels} channels, the plan names {inputs}"
            )
        if self.cascade and (
            self.low_resolution is None
            or self.low_resolution.labels.values != self.labels.values
            or self.views
        ):
            raise ValueError(
                "a cascade needs a low_resolution plan of the same structures, and has no views"
            )
        needed = len(self.structures) + (0 if self.network.overlapping else 1)
        if self.network.classes != needed:
            background = "" if self.network.overlapping else " and background"
            raise ValueError(
                f"the network gives {self.network.classes} classes, {len(self.structures)} "
                f"structures{background} need {needed}"
            )
        if any(p < 1 or p % d for p, d in zip(self.patch, self.network.divisor, strict=True)):
            raise ValueError(
                f"patch {self.patch} is not divisible by the network's strides "
                f"{self.network.divisor}"
            )
        if self.dims == 2 and self.patch[2] != 1:
            raise ValueError(f"a 2-D patch has one voxel along the last axis, found {self.patch}")
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
                "an orientation has one letter each of L/R, A/P, S/I, or of i, j, k, found "
                f"{self.orientation}"
            )
        if self.loss.class_weights and len(self.loss.class_weights) != self.network.classes:
            raise ValueError(
                f"{self.network.classes} classes need as many class weights, found "
                f"{len(self.loss.class_weights)}"
            )
        self._check_views()
        return self

    def _check_views(self) -> None:
        if self.views and self.network.overlapping:
            raise ValueError("views are for classes that exclude each other")
        if self.views and self.inference.average == "logits":
            raise ValueError("views are averaged by their probabilities, not logits")
        if self.views and self.dims == 3:
            raise ValueError("views are for 2-D plans")
        if self.views and not self.is_oriented:
            raise ValueError(
                "views are told apart by where axes point to, so they need an orientation such "
                "as RAS"
            )
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
        return LabelSet.from_json(s.model_dump() for s in self.structures)

    @property
    def is_oriented(self) -> bool:
        """Whether the prepared axes point the same way for every scan."""
        return self.orientation.isupper()

    @property
    def sided_axis(self) -> int | None:
        """Which axis of the prepared array runs between left and right; None where that differs
        from scan to scan.
        """
        return next((axis for axis, letter in enumerate(self.orientation) if letter in "LR"), None)

    def named_views(self) -> dict[str, View]:
        """The views by the name of their planes: axial, coronal, sagittal."""
        return {_PLANES[self.orientation[view.axis]]: view for view in self.views}

    def seen(self, view: View) -> Plan:
        """The plan of one view's network: a 2-D plan of its own whose last axis is the one that
        ``view`` slices.

        Everything that is said by axis is put in the view's order; with ``merge_sides`` pairs of
        sided structures become one, and the weight of a merged class is what twice as frequent a
        class would have.
        """
        order = view.order
        table = self.labels.merge_table() if view.merge_sides else np.arange(self.network.classes)
        merged = self.labels.merged() if view.merge_sides else self.labels
        weights = self.loss.class_weights and tuple(
            1
            / sum(
                1 / w for w, to in zip(self.loss.class_weights, table, strict=True) if to == index
            )
            for index in range(len(merged) + 1)
        )
        # A flip along the sliced axis changes no slice.
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
    def from_json(cls, text: str, path: str = "") -> Plan:
        """The inverse of ``to_json``.

        Raises:
            PlanError: not JSON, an unknown key, or values that exclude each other; each fault on
                its own.
        """
        try:
            data = json.loads(text)
        except ValueError as error:
            raise PlanError(
                f"{'' if path else 'the plan '}is not JSON ({error})", path=path or None
            ) from error
        if isinstance(data, dict):
            data = migrate("delineate_plan", data, path=path or None, error=PlanError)
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            faults = "; ".join(
                f"{'.'.join(map(str, e['loc'])) or 'plan'}: "
                f"{e['msg'].removeprefix('Value error, ')}"
                for e in error.errors()[:5]
            )
            raise PlanError(faults, path=path or None) from error

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Read ``plan.json``."""
        try:
            return cls.from_json(Path(path).read_text(encoding="utf-8"), str(path))
        except OSError as error:
            raise InputError(f"cannot be read ({error.strerror})", path=path) from error

    def replace(self, **changes: Any) -> Plan:
        """A plan with ``changes``, checked anew."""
        return Plan.model_validate({**self.model_dump(), **changes})
