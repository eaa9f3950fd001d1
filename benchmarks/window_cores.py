"""Windows of medium size on one core each or on all cores: seconds of one window and of eight, with
the same compiled network.

    python benchmarks/window_cores.py [--dims 2] [--patch 512] [--runs 5]

The number of windows in parallel is ``streams`` of ``delineate.inference.openvino``: compared are
one (all cores for a window) and as many as there are threads. The network is that of nnU-Net for
this size, with random weights.
"""

from __future__ import annotations

import argparse

import torch

from delineate.core.plan import Network
from delineate.inference import openvino as compiled
from delineate.inference.engine import fast_dtype, logits_of, traced_shape
from delineate.networks.build import build, filled, weights_of
from measure import keep, seconds

WIDTHS = {2: (32, 64, 128, 256, 512, 512, 512, 512), 3: (32, 64, 128, 256, 320)}


def network(dims: int) -> Network:
    """Strides of 2 and kernels of 3 along all axes."""
    widths, one = WIDTHS[dims], dims == 2
    return Network(
        dims=dims,
        channels=1,
        classes=3,
        widths=widths,
        strides=((2, 2, 1 if one else 2),) * (len(widths) - 1),
        kernels=((3, 3, 1 if one else 3),) * len(widths),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dims", type=int, default=2, choices=(2, 3))
    parser.add_argument("--patch", type=int, default=512)
    parser.add_argument("--runs", type=int, default=5)
    a = parser.parse_args()
    net, dtype = network(a.dims), fast_dtype(torch.device("cpu"))
    patch = (a.patch, a.patch, 1 if a.dims == 2 else a.patch)
    shape, traced = (1, *patch[: a.dims]), traced_shape(net, patch)
    weights, threads = weights_of(build(net, 0)), torch.get_num_threads()
    chosen, found = compiled.streams, {}
    for name, number in {"all cores": 1, "one core each": threads}.items():
        compiled.streams = lambda *_, number=number: number
        graph = compiled.compiled(lambda: filled(net, weights), shape, dtype, traced=traced)
        assert graph is not None
        for windows in (1, 8):
            x = torch.randn(windows, 1, *patch)
            found[f"{windows} window(s), {name}"] = round(
                seconds(lambda graph=graph, x=x: logits_of(graph, x, a.dims, dtype), a.runs), 4
            )
    compiled.streams = chosen
    by_size = chosen(a.patch**a.dims, threads)
    keep("window_cores", {"patch": a.patch, "chosen": by_size, "runs": a.runs, "seconds": found})


if __name__ == "__main__":
    main()
