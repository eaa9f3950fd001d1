"""Functions that register a part: decorators for functions and classes, and plain calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from .parts import (
    Augmentation,
    Format,
    Layout,
    Listener,
    LossTerm,
    Mask,
    Metric,
    MetricColumn,
    Names,
    NetworkKind,
    OptimiserKind,
    Recipe,
    Terms,
    Tier,
)
from .register import Register
from .registers import (
    AUGMENTATIONS,
    FORMATS,
    LAYOUTS,
    LISTENERS,
    LOSSES,
    METRICS,
    NETWORKS,
    OPTIMISERS,
    RECIPES,
    TERMS,
)

F = TypeVar("F", bound=Callable[..., Any])


def metric(name: str, *, unit: str, better: str, definition: str) -> Callable[[F], F]:
    """Register a metric of one structure: (prediction, truth, spacing_mm) -> float.

    The masks are (I, J, K) bool, cropped to both; ``spacing_mm`` is along I, J and K. Return NaN if
    the metric is not defined, such as for two empty masks.

    Args:
        name: of the metric and of its column in scores.csv.
        unit: such as "mm"; "" for a ratio.
        better: HIGHER, LOWER, NEARER_ZERO or NO_JUDGEMENT.
        definition: one sentence, for the report.

    Raises:
        PartError: the name is in use. TypeError: another word for ``better``.

    >>> from delineate import extend
    >>> @extend.metric("voxels", unit="", better="no judgement", definition="Voxels found.")
    ... def voxels(prediction, truth, spacing_mm):
    ...     return float(prediction.sum())
    >>> import numpy as np
    >>> mask = np.ones((2, 2, 2), bool)
    >>> extend.METRICS["voxels"].measure(mask, mask, (1, 1, 1))
    {'voxels': 8.0}
    """
    column = MetricColumn(unit, better, definition)

    def register(function: F) -> F:
        METRICS.add(name, Metric({name: column}, Single(name, function)))
        return function

    return register


@dataclass(frozen=True)
class Single:
    """A metric function of one number, as the ``measure`` of a ``Metric``; it can be pickled."""

    name: str
    function: Callable[[Mask, Mask, Sequence[float]], float]

    @property
    def __wrapped__(self) -> Callable[[Mask, Mask, Sequence[float]], float]:
        """The function itself, as for ``functools.wraps``: it says where the metric comes from."""
        return self.function

    def __call__(
        self, prediction: Mask, truth: Mask, spacing_mm: Sequence[float]
    ) -> dict[str, float]:
        return {self.name: float(self.function(prediction, truth, spacing_mm))}


def network(name: str, *, definition: str) -> Callable[[F], F]:
    """Register a network: a function or class (Network) -> torch module; see ``NetworkKind``.

    >>> from delineate import extend
    >>> @extend.network("one-layer", definition="One convolution, for an example.")
    ... def one_layer(net):
    ...     from torch import nn
    ...     conv = nn.Conv2d if net.dims == 2 else nn.Conv3d
    ...     return conv(net.channels, net.classes, 3, padding=1)
    >>> "one-layer" in extend.NETWORKS
    True
    """
    return _registering(NETWORKS, name, lambda function: NetworkKind(function, definition))


def loss(name: str, *, definition: str) -> Callable[[F], F]:
    """Register a loss term: (class scores (B, L, *space) float32, true classes (B, *space) int64)
    -> scalar; see ``LossTerm``. The plan's ``loss.custom`` gives its weight.

    >>> from delineate import extend
    >>> @extend.loss("confidence", definition="Minus the mean of the largest probability.")
    ... def confidence(scores, target):
    ...     return -scores.softmax(1).amax(1).mean()
    >>> "confidence" in extend.LOSSES
    True
    """
    return _registering(LOSSES, name, lambda function: LossTerm(function, definition))


def augmentation(name: str, *, definition: str) -> Callable[[F], F]:
    """Register a random change of training patches: (image (C, *patch), classes (*patch), random
    generator, plan) -> both; see ``Augmentation``. The plan's ``augmentation.custom`` gives its
    probability.

    >>> from delineate import extend
    >>> @extend.augmentation("offset", definition="Adds one random number to the image.")
    ... def offset(image, label, rng, plan):
    ...     return image + float(rng.normal()), label
    >>> "offset" in extend.AUGMENTATIONS
    True
    """
    return _registering(AUGMENTATIONS, name, lambda function: Augmentation(function, definition))


def optimiser(name: str, *, definition: str) -> Callable[[F], F]:
    """Register an optimiser: (module, settings of the plan, dtype) -> torch optimiser; see
    ``OptimiserKind``. The plan's ``optimiser.kind`` names it.

    >>> from delineate import extend
    >>> @extend.optimiser("rprop", definition="Resilient backpropagation (Riedmiller 1993).")
    ... def rprop(module, plan, dtype):
    ...     from torch.optim import Rprop
    ...     return Rprop(module.parameters(), lr=plan.learning_rate)
    >>> "rprop" in extend.OPTIMISERS
    True
    """
    return _registering(OPTIMISERS, name, lambda function: OptimiserKind(function, definition))


def layout(name: str, *, definition: str, tier: Tier = "challenge") -> Callable[[F], F]:
    """Register a layout: (tree, folder) -> ``Draft`` of its cases, or None; see ``Layout``.

    >>> from delineate import extend
    >>> @extend.layout("image-mask", definition="ID_image.nii and ID_mask.nii", tier="on request")
    ... def pairs(tree, folder):
    ...     cases = []
    ...     for image in tree.files(folder):
    ...         if image.name.endswith("_image.nii"):
    ...             mask = str(image).replace("_image.nii", "_mask.nii")
    ...             scan = extend.Source(str(image)), extend.Source(mask)
    ...             cases.append(extend.Case(image.name[:-10], "", scan[:1], scan[1:]))
    ...     return extend.Draft("image-mask", cases) if cases else None
    >>> "image-mask" in extend.LAYOUTS
    True
    """
    return _registering(LAYOUTS, name, lambda function: Layout(function, definition, tier))


def listener(name: str, *, definition: str, needs: str = "") -> Callable[[F], F]:
    """Register a listener: (``FollowedRun``) -> ``Recorder`` with ``add(line)`` and ``close()``;
    see ``Listener``.

    >>> from delineate import extend
    >>> @extend.listener("printer", definition="Prints the loss of every epoch.")
    ... class Printer:
    ...     def __init__(self, run): self.name = run.name
    ...     def add(self, line): print(self.name, line["loss"])
    ...     def close(self): pass
    >>> "printer" in extend.LISTENERS
    True
    """
    return _registering(LISTENERS, name, lambda function: Listener(function, definition, needs))


def terms(name: str, *, definition: str) -> Callable[[Callable[[], Names]], Callable[[], Names]]:
    """Register names of channels and structures: () -> ``Names``; see ``Terms``.

    Args:
        name: of this list of names.
        definition: one sentence, with the source.

    Raises:
        PartError: the name is in use, or a term has another meaning already.

    >>> from delineate import extend
    >>> @extend.terms("st-mary", definition="Series descriptions of the St Mary hospital.")
    ... def st_mary():
    ...     return extend.Names(channels={"FLAIR": ["hirn dunkel"]}, structures={"liver": ["hep"]})
    >>> "st-mary" in extend.TERMS
    True
    """
    return _registering(TERMS, name, lambda function: Terms(function, definition))


def file_format(name: str, part: Format) -> Format:
    """Register a file format; see ``Format``.

    >>> import numpy as np
    >>> from delineate import extend
    >>> def is_null(head): return head[:4] == b"NULL"
    >>> def read_null(path):
    ...     return extend.Volume(np.zeros((1, 1, 1)), extend.Grid((1, 1, 1), np.eye(4)))
    >>> part = extend.Format(is_null, read_null, "One voxel.", (".null",))
    >>> part = extend.file_format("Null", part)
    >>> "Null" in extend.FORMATS
    True
    """
    return FORMATS.add(name, part)


def recipe(part: Recipe) -> Recipe:
    """Register a recipe under its name; see ``Recipe``.

    >>> from delineate import extend
    >>> from delineate.planning.rules import make_plan
    >>> extend.recipe(extend.Recipe("plain-rules", "The rules, unchanged.", make_plan)).name
    'plain-rules'
    """
    return RECIPES.add(part.name, part)


def _registering(
    register: Register[Any], name: str, make: Callable[[Callable[..., Any]], Any]
) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        register.add(name, make(function))
        return function

    return decorate
