"""Normalisation: raw values to the network's input, by the rule in the plan.

``measure`` computes what a rule needs, from one image (robust rules) or from the plan (fixed
windows), and returns a ``Scaling``: clip, subtract, divide. All of it is elementwise, so it can be
applied block by block.

``shown_range`` is the range in which pictures and the viewer show intensities of no known unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.plan import Normalisation
from ..core.volume import background_of

SAMPLE = 2_000_000  # voxels for percentiles; more change them by less than one intensity unit
SHOWN = (1.0, 99.0)  # percentiles


@dataclass(frozen=True)
class Scaling:
    """Clip to low..high, then (x - mean) / std; infinite bounds do not clip.

    Values equal to ``outside`` become 0.
    """

    low: float
    high: float
    mean: float
    std: float
    outside: float | None = None

    def __call__(self, x: Any) -> Any:
        """Scale a float32 tensor or ndarray of any shape in place.

        If there are bounds, infinite values become the bounds and NaN becomes the lower one.
        """
        if isinstance(x, np.ndarray):
            return self._scaled(x)
        outside = None if self.outside is None else x == self.outside
        if not (np.isinf(self.low) and np.isinf(self.high)):
            x.nan_to_num_(nan=self.low, posinf=self.high, neginf=self.low).clamp_(
                self.low, self.high
            )
        x.sub_(self.mean).div_(self.std)
        return x if outside is None else x.masked_fill_(outside, 0.0)

    def _scaled(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        outside = None if self.outside is None else x == np.float32(self.outside)
        low, high = np.float32(self.low), np.float32(self.high)
        if not (np.isinf(low) and np.isinf(high)):
            x[np.isnan(x)] = low
            np.clip(x, low, high, out=x)
        x -= np.float32(self.mean)
        x /= np.float32(self.std)
        if outside is not None:
            x[outside] = 0
        return x


def measure(array: NDArray[Any], rule: Normalisation) -> Scaling:
    """The scaling of one channel (I, J, K) by ``rule``.

    A constant image gets the standard deviation 1, so it becomes zero. An image without finite
    values is not scaled.
    """
    if rule.kind == "none":
        return Scaling(-np.inf, np.inf, 0.0, 1.0)
    if rule.kind == "window":
        return Scaling(rule.low, rule.high, rule.mean, rule.std)
    if rule.kind in ("standard", "range"):
        return _of_every_voxel(array, rule)
    # Robust: percentiles, then mean and standard deviation of the clipped sample.
    values = sample(array, nonzero=rule.inside == "nonzero")
    if not len(values):
        return Scaling(-np.inf, np.inf, 0.0, 1.0)
    low, high = (
        float(v) for v in np.percentile(values, (rule.low_percentile, rule.high_percentile))
    )
    if rule.inside == "nonzero":
        # The background must stay at or below the lowest tissue after clipping.
        low = min(low, background_of(array))
    # A standard deviation within rounding errors means a constant image, which is divided by 1.
    clipped = np.clip(values, low, high)
    std = float(clipped.std(dtype=np.float64))
    return Scaling(
        low,
        high,
        float(clipped.mean(dtype=np.float64)),
        std if std > 1e-12 * max(1.0, abs(high)) else 1.0,
    )


def _of_every_voxel(array: NDArray[Any], rule: Normalisation) -> Scaling:
    """Mean and standard deviation, or lowest and highest value, of all voxels.

    Without sampling; one plane at a time, to limit memory.
    """
    outside = background_of(array) if rule.kind == "standard" and rule.inside == "nonzero" else None
    # Sums in float64, so that one pass is exact enough.
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
    """Finite values of ``array`` as float64, about ``SAMPLE`` at most, evenly spaced.

    With ``nonzero``, only values that differ from the background.
    """
    # In memory order; a copy only if the array has gaps.
    flat = array.reshape(-1) if array.flags.c_contiguous else array.ravel(order="K")
    step = max(1, len(flat) // SAMPLE)
    if step > 1 and step % 2 == 0:
        step += 1  # an odd step does not stay in the same columns of even-sized axes
    values = flat[::step].astype(np.float64)
    values = values[np.isfinite(values)]
    return values[values != background_of(array)] if nonzero else values


def shown_range(values: NDArray[np.float64]) -> tuple[float, float]:
    """The lowest and highest intensity that are shown of a ``sample``; 0 to 1 of an empty one.

    >>> shown_range(np.arange(101.0)), shown_range(np.ones(3))
    ((1.0, 99.0), (1.0, 2.0))
    """
    low, high = map(float, np.percentile(values, SHOWN)) if len(values) else (0.0, 1.0)
    return low, high if high > low else low + 1
