"""Maps of the disagreement of Monte-Carlo dropout samples, for every voxel.

Let p_n be the class probabilities of a voxel in sample n = 1 ... N, and p their mean:

    entropy   -sum_c p(c) ln p(c), in nats: 0 if the samples are sure and agree, at most ln L
    sd        sqrt(1/2 sum_c var_n p_n(c)): with one structure, the standard deviation of its
              probability

Entropy: Gal & Ghahramani 2016; Roy et al. 2019. Both are computed on the preprocessed grid and
interpolated to the scan's. Samples are added slab by slab while they are restored, so that nothing
is kept of a single one: the sums of class probabilities are in ``planes``, in memory or above a
limit in a temporary file, and one number for each voxel for the sum of squares. In half precision
(above ``planes.HALF_ABOVE_BYTES``), an sd below 0.02 is not distinguished from 0.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..core.errors import UsageError
from ..core.prediction import MAPS
from .planes import Planes, planes

if TYPE_CHECKING:
    from torch import Tensor


def refuse_unknown(maps: Iterable[str], samples: int) -> None:
    """Raise UsageError unless ``maps`` are of ``MAPS`` and there are samples for them."""
    chosen = list(maps)
    if wrong := [name for name in chosen if name not in MAPS]:
        raise UsageError(f"--maps are {' and '.join(MAPS)}, found {', '.join(wrong)}")
    if chosen and not samples:
        raise UsageError("--maps are of Monte-Carlo samples; state their number with --samples")


@dataclass(frozen=True)
class SampleSums:
    """The sums over ``count`` samples of one scan.

    Args:
        count: number of samples.
        mean: planes (K, L, A, B) of class probabilities, each sample divided by ``count``.
        squares: (K, A, B) float32 on the CPU: mean of the sum over the classes of p_n(c)^2.
        logits: whether the slabs are logits.
    """

    count: int
    mean: Planes
    squares: Tensor
    logits: bool

    def added(self, slabs: Iterable[Tensor]) -> Iterator[Tensor]:
        """The slabs (L, d, A, B) of one sample as they are, after they are added."""
        start = 0
        for slab in slabs:
            self._add(slab, start)
            start += slab.shape[1]
            yield slab

    def _add(self, slab: Tensor, start: int) -> None:
        for first, held in self.mean.walk(start, start + slab.shape[1]):
            here = slice(first - start, first - start + len(held))
            scores = slab[:, here].float()
            scores = scores.softmax(0) if self.logits else scores
            held.add_((scores / self.count).movedim(0, 1).to(held.device, held.dtype))
            square = scores.square().sum(0) / self.count
            self.squares[first : first + len(held)] += square.cpu()

    def slabs(self) -> Iterator[Tensor]:
        """(2, d, A, B) float32 in the order of ``MAPS``, along the marching axis."""
        import torch

        for first, held in self.mean.walk(0, len(self.squares)):
            mean = held.to("cpu").float().movedim(1, 0)
            mean = mean / mean.sum(0, keepdim=True)
            entropy = -torch.special.xlogy(mean, mean).sum(0)
            square = self.squares[first : first + len(held)]
            # Rounding leaves small negative numbers.
            variance = (square - mean.square().sum(0)).clamp_min(0) / 2
            sd = variance.sqrt()
            if self.mean.dtype == torch.float16:
                sd = torch.where(sd < 0.02, 0.0, sd)
            yield torch.stack([entropy.clamp_min(0), sd])


@contextlib.contextmanager
def sample_sums(
    count: int,
    classes: int,
    shape: tuple[int, int, int],
    device: Any,
    logits: bool,
    memory_bytes: int | None,
) -> Iterator[SampleSums]:
    """Sums of zeros for a preprocessed scan; ``shape`` has the marching axis first.

    Raises:
        OutputError: the disk has no room for the temporary file.
    """
    import torch

    with planes(shape[0], classes, shape[1:], device, memory_bytes) as mean:
        yield SampleSums(count, mean, torch.zeros(shape), logits)
