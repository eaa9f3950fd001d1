"""The registers, one for each kind of part, and what is done with the parts that a plan names."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..core import terms
from ..core.bundle import Bundle
from ..core.errors import DelineateError, PartError
from ..core.plan import Network, Plan
from .parts import (
    Augmentation,
    Format,
    Layout,
    Listener,
    LossTerm,
    Metric,
    NetworkKind,
    OptimiserKind,
    Recipe,
    StructureTerm,
    Terms,
    VoxelTerm,
)
from .register import Origin, Register

LAYOUTS: Register[Layout] = Register(
    "layout", "layouts", "delineate.cohorts.discovery.layouts", Layout
)
FORMATS: Register[Format] = Register("format", "formats", "delineate.formats.files", Format)
METRICS: Register[Metric] = Register("metric", "metrics", "delineate.metrics.selection", Metric)
NETWORKS: Register[NetworkKind] = Register(
    "network", "networks", "delineate.networks.build", NetworkKind
)
LOSSES: Register[LossTerm | VoxelTerm | StructureTerm] = Register(
    "loss term", "losses", "delineate.training.losses", LossTerm, VoxelTerm, StructureTerm
)
AUGMENTATIONS: Register[Augmentation] = Register(
    "augmentation", "augmentations", "delineate.training.augmentation", Augmentation
)
OPTIMISERS: Register[OptimiserKind] = Register(
    "optimiser", "optimisers", "delineate.training.optimisers", OptimiserKind
)
RECIPES: Register[Recipe] = Register("recipe", "recipes", "delineate.planning.recipes", Recipe)
LISTENERS: Register[Listener] = Register(
    "listener", "listeners", "delineate.commands.train.listeners", Listener
)


def _add_names(name: str, part: Terms) -> None:
    """Add the names and codes of a part to the tables of ``core.terms``.

    Raises:
        PartError: a name has another meaning already, or a structure other codes.
    """
    names = part.names()
    for kind, given in (("channel", names.channels), ("structure", names.structures)):
        for identity, others in given.items():
            for other in others:
                try:
                    terms.add(other, identity, is_channel=kind == "channel")
                except ValueError as error:
                    raise PartError(f"the terms {name} name a {kind} wrongly: {error}") from error
    for identity, coding in names.codes.items():
        try:
            terms.add_code(identity, coding)
        except ValueError as error:
            raise PartError(f"the terms {name} code a structure wrongly: {error}") from error


TERMS: Register[Terms] = Register(
    "terms", "terms", "delineate.extend.own_terms", Terms, on_add=_add_names
)
# Terms of installed packages are loaded when the first name is read.
terms.load_more_with(lambda: list(TERMS.items()))
REGISTERS: tuple[Register[Any], ...] = (
    LAYOUTS,
    FORMATS,
    METRICS,
    NETWORKS,
    LOSSES,
    AUGMENTATIONS,
    OPTIMISERS,
    RECIPES,
    LISTENERS,
    TERMS,
)


def name_in(register: Register[Any], part: str | Callable[..., Any] | None) -> str:
    """The name of a part of which a function or class is given; names are returned as they are,
    and None as "". A function that is not registered yet is registered under its full name.

    >>> def flat(net): ...
    >>> name_in(NETWORKS, flat).endswith("flat")
    True
    """
    if part is None or isinstance(part, str):
        return part or ""
    kind, words = register.kinds[0], (getattr(part, "__doc__", None) or "").strip()
    return register.name_of(part, lambda work: kind(work, words.partition("\n")[0] or "no text"))


@contextlib.contextmanager
def running(register: Register[Any], name: str) -> Iterator[None]:
    """Run code of a registered part. An error in code that is not delineate's own becomes one
    sentence that names the part and where it comes from.

    Raises:
        PartError: the part failed.
    """
    try:
        yield
    except DelineateError:
        raise
    except Exception as error:
        if register.is_own(name):
            raise
        raise PartError(
            f"the {register.noun} {name} from {register.origin(name)} failed "
            f"({type(error).__name__}: {error})"
        ) from error


# ---- the parts of a plan ----


def parts_of(plan: Plan) -> list[tuple[Register[Any], str]]:
    """Every registered part that a plan names, with its register."""
    return [
        (NETWORKS, plan.network.kind),
        (OPTIMISERS, plan.optimiser.kind),
        *((LOSSES, name) for name in plan.loss.custom),
        *((AUGMENTATIONS, name) for name in plan.augmentation.custom),
    ]


def custom_parts(plan: Plan) -> list[dict[str, str]]:
    """The parts of a plan that are not delineate's own, with their origins, for the card of a
    model: kind, name, package, version, module and source_sha256.

    Raises:
        PartError: a part is not registered.
    """
    return [
        {"kind": register.noun, "name": name, **register.origin(name).to_json()}
        for register, name in parts_of(plan)
        if not register.is_own(name)
    ]


def load_bundle(path: str | Path) -> Bundle:
    """Load a model to use it: its network must be registered here. Parts that only training uses
    are not needed.

    Raises:
        InputError, BundleError: see ``Bundle.load``.
        PartError: the network is not registered; names the package to install.
    """
    bundle = Bundle.load(path)
    plan, parts = bundle.plan, bundle.card.get("parts", ())
    stages = [plan, *([plan.low_resolution] if plan.low_resolution else [])]
    for name in dict.fromkeys(stage.network.kind for stage in stages):
        if name in Network.OWN_KINDS:
            continue  # known without loading torch
        made = next((p for p in parts if (p["kind"], p["name"]) == (NETWORKS.noun, name)), None)
        if name not in NETWORKS:
            origin = Origin(**{f.name: made[f.name] for f in fields(Origin)}) if made else None
            how = (
                f"comes from {origin}; install it, or import its module first"
                if origin
                else "is not part of this version of delineate"
            )
            raise PartError(
                f"the model's network {name} is not installed here: it {how}", path=path
            )
        if made and NETWORKS.origin(name).source_sha256 != made["source_sha256"]:
            warnings.warn(
                f"the model's network {name} was made with {made['package']} {made['version']}; "
                f"the code installed here, {NETWORKS.origin(name)}, is different",
                stacklevel=2,
            )
    return bundle
