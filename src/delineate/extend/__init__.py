"""The one register of everything that can be added: layouts, formats, metrics, networks, loss
terms, augmentations, optimisers, recipes, run listeners, and names of channels and structures.

The package registers its own parts here in the same way as everybody else. A part is one frozen
object with all that is needed of it; a forgotten field is an error where the part is made. There
are two ways to add one from outside:

    @extend.metric("volume_ratio", unit="", better=extend.NEARER_ZERO, definition="...")
    def volume_ratio(prediction, truth, spacing_mm): ...

in a script or notebook, or, for every user of a package, an entry point of the group
``delineate.metrics`` (``layouts``, ``formats`` ...) whose name is that of the part and whose object
is the part, or a function or module that registers it when it is imported.

A model file names the parts that it needs (package, version, SHA-256 of their source). It never
contains code, and nothing in it is run. This module imports nothing but the core.
"""

from ..core.errors import PartError
from ..core.grid import Grid
from ..core.labels import LabelSet
from ..core.manifest import Case, Manifest, Source
from ..core.plan import Loss, Network, Optimiser, Plan
from ..core.scores import HIGHER, LOWER, NEARER_ZERO, NO_JUDGEMENT
from ..core.terms import Code, Coding
from ..core.volume import Volume
from .findings import Draft
from .parts import (
    TIERS,
    Augmentation,
    FollowedRun,
    Format,
    Layout,
    Listener,
    LossTerm,
    Metric,
    MetricColumn,
    Names,
    NetworkKind,
    OptimiserKind,
    Recipe,
    Recorder,
    StructureTerm,
    Terms,
    VoxelTerm,
)
from .register import Origin, Register
from .registering import (
    augmentation,
    file_format,
    layout,
    listener,
    loss,
    metric,
    network,
    optimiser,
    recipe,
    terms,
)
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
    REGISTERS,
    TERMS,
)

__all__ = [
    "AUGMENTATIONS",
    "FORMATS",
    "HIGHER",
    "LAYOUTS",
    "LISTENERS",
    "LOSSES",
    "LOWER",
    "METRICS",
    "NEARER_ZERO",
    "NETWORKS",
    "NO_JUDGEMENT",
    "OPTIMISERS",
    "RECIPES",
    "REGISTERS",
    "TERMS",
    "TIERS",
    "Augmentation",
    "Case",
    "Code",
    "Coding",
    "Draft",
    "FollowedRun",
    "Format",
    "Grid",
    "LabelSet",
    "Layout",
    "Listener",
    "Loss",
    "LossTerm",
    "Manifest",
    "Metric",
    "MetricColumn",
    "Names",
    "Network",
    "NetworkKind",
    "Optimiser",
    "OptimiserKind",
    "Origin",
    "PartError",
    "Plan",
    "Recipe",
    "Recorder",
    "Register",
    "Source",
    "StructureTerm",
    "Terms",
    "Volume",
    "VoxelTerm",
    "augmentation",
    "file_format",
    "layout",
    "listener",
    "loss",
    "metric",
    "network",
    "optimiser",
    "recipe",
    "terms",
]
