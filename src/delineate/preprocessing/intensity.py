"""Raw values to the network's input, by the rule that the plan states.

``measure`` reads what a rule needs from one image (robust rules) or from the plan (fixed windows)
and gives ``Scaling``: clip, subtract, divide. Everything is elementwise, so it can run block by
block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..core.plan import Normalisation
from ..core.volume import background_of

SAMPLE = (
    2_000_000  # voxels that percentiles are taken from; more changes them by less than a grey value
)


@dataclass(frozen=True)
class Scaling:
    """clip to low..high, then (x - mean) / std; infinite bounds do not clip. Values equal to
    ``outside`` become 0.
    """

    low: float
    high: float
    mean: float
    std: float
    outside: float | None = None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """In place on a float tensor of any shape; values that are not finite become the lower
        bound.
        """
        outside = None if self.outside is None else x == self.outside
        if not (np.isinf(self.low) and np.isinf(self.high)):
            x.nan_to_num_(nan=self.low, posinf=self.high, neginf=self.low).clamp_(
                self.low, self.high
            )
        x.sub_(self.mean).div_(self.std)
        return x if outside is None else x.masked_fill_(outside, 0.0)


def measure(array: NDArray[Any], rule: Normalisation) -> Scaling:
    """The scaling of one channel (I, J, K) by ``rule``; a constant image gets deviation 1, so it
    becomes zero.
    """
    if rule.kind == "none":
        return Scaling(-np.inf, np.inf, 0.0, 1.0)
    if rule.kind == "window":
        return Scaling(rule.low, rule.high, rule.mean, rule.std)
    if rule.kind in ("standard", "range"):
        return _of_every_voxel(array, rule)
    values = sample(array, nonzero=rule.inside == "nonzero")
    if not len(values):
        return Scaling(-np.inf, np.inf, 0.0, 1.0)
    low, high = (
        float(v) for v in np.percentile(values, (rule.low_percentile, rule.high_percentile))
    )
    if rule.inside == "nonzero":
        # What is outside stays outside, below or at the lowest tissue.
        low = min(low, background_of(array))
    clipped = np.clip(values, low, high)
    std = float(clipped.std(dtype=np.float64))
    return Scaling(
        low,
        high,
        float(clipped.mean(dtype=np.float64)),
        std if std > 1e-12 * max(1.0, abs(high)) else 1.0,
    )


def _of_every_voxel(array: NDArray[Any], rule: Normalisation) -> Scaling:
    """Mean and deviation, or lowest and highest, without sampling; a plane at a time."""
    outside = background_of(array) if rule.kind == "standard" and rule.inside == "nonzero" else None
    count, total, squares, low, high = 0, 0.0, 0.0, np.inf, -np.inf
    for plane in array:
        values = plane[np.isfinite(plane)].astype(np.float64)
        values = values if outside is None else values[values != outside]
        if len(values):
            count, total, squares = (
                count + len(values),
                total + values.sum(),
                squares + np.square(values).sum(),
            )
            low, high = min(low, values.min()), max(high, values.max())
    if not count:
        return Scaling(-np.inf, np.inf, 0.0, 1.0)
    if rule.kind == "range":
        return Scaling(low, high, low, high - low or 1.0)
    mean = total / count
    std = float(np.sqrt(max(0.0, squares / count - mean**2)))
    return Scaling(low, high, mean, std if std > 1e-7 * max(1.0, abs(mean)) else 1.0, outside)


def sample(array: NDArray[Any], nonzero: bool = False) -> NDArray[np.float64]:
    """Finite values of ``array`` as float64, at most about ``SAMPLE``, evenly spaced over the
    whole; only those unlike the background if asked.
    """
    flat = array.reshape(-1) if array.flags.c_contiguous else array.ravel(order="K")
    step = max(1, len(flat) // SAMPLE)
    if step > 1 and step % 2 == 0:
        step += 1  # an odd step does not walk along columns of even sizes
    values = flat[::step].astype(np.float64)
    values = values[np.isfinite(values)]
    return values[values != background_of(array)] if nonzero else values
