"""Models that stay in memory between calls, in the resident engine only (``commands.serve``).

A bundle is that of an earlier call if its file is the same and unchanged since; it was verified
then. Networks are those of an earlier call if model, device, options and threads are the same,
whether they are compiled or modules of torch, on any device. Other programs use a GPU too, so that
networks are kept there only while much of its memory is free.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.bundle import Bundle
from ...core.plan import Network
from ...extend.registers import load_bundle

if TYPE_CHECKING:
    from ...inference.engine import Engine

# A file that was changed this short a time ago may change again within the same tick of its clock.
SETTLED_S = 2.0
GPU_FREE_SHARE = 0.5  # of a GPU's memory that must be free for networks to be kept there


class Kept:
    """Bundles and networks, those used longest ago first."""

    def __init__(self) -> None:
        self.bundles: OrderedDict[Hashable, Bundle] = OrderedDict()
        self.engines: OrderedDict[Hashable, Engine] = OrderedDict()

    def names(self) -> list[str]:
        """The files of the models."""
        return sorted({str(key[0]) for key in self.bundles if isinstance(key, tuple)})

    def drop_one(self) -> bool:
        """Drop what was used longest ago; False if there is nothing."""
        if not (self.engines or self.bundles):
            return False
        if self.engines:
            self.engines.popitem(last=False)
        if len(self.bundles) > len(self.engines):
            self.bundles.popitem(last=False)
        return True

    def leave_room(self, memory_of: Callable[[Any], tuple[int, int]]) -> None:
        """Drop networks on devices with memory of their own, those used longest ago first, while
        less than ``GPU_FREE_SHARE`` of it is free.

        Args:
            memory_of: free and whole memory of a device, in bytes.
        """
        for key, engine in tuple(self.engines.items()):
            if engine.device.type == "cpu":
                continue
            free, whole = memory_of(engine.device)
            if free < GPU_FREE_SHARE * whole:
                del self.engines[key]


_kept: Kept | None = None


@contextlib.contextmanager
def keeping(kept: Kept) -> Iterator[None]:
    """Inside the block models are kept in ``kept``; without it, none are."""
    global _kept
    _kept = kept
    try:
        yield
    finally:
        _kept = None


def loaded(model: str | Path) -> Bundle:
    """As ``load_bundle``; a bundle that is kept is not read again."""
    if _kept is None:
        return load_bundle(model)
    key = _identity(model)
    if key is not None and key in _kept.bundles:
        _kept.bundles.move_to_end(key)
        return _kept.bundles[key]
    bundle = load_bundle(model)
    kinds = [bundle.plan, *([bundle.plan.low_resolution] if bundle.plan.low_resolution else [])]
    # Loading a network of somebody else may warn, each time.
    is_ours = all(plan.network.kind in Network.OWN_KINDS for plan in kinds)
    if key is not None and key == _identity(model) and is_ours:
        _kept.bundles[key] = bundle
    return bundle


def networks(key: Hashable, make: Callable[[], Engine]) -> Engine:
    """As ``make``; networks that are kept are not made again.

    Args:
        key: everything on which they depend.
    """
    if _kept is None:
        return make()
    if key in _kept.engines:
        _kept.engines.move_to_end(key)
        return _kept.engines[key]
    engine = _kept.engines[key] = make()
    return engine


def _identity(model: str | Path) -> tuple[Any, ...] | None:
    """What changes with a file; None if that cannot be known."""
    try:
        found = os.stat(model)
    except OSError:
        return None
    if time.time() - max(found.st_mtime, found.st_ctime) < SETTLED_S:
        return None
    place = os.path.realpath(model)
    return (
        *(place, found.st_dev, found.st_ino, found.st_size),
        *(found.st_mtime_ns, found.st_ctime_ns),
    )
