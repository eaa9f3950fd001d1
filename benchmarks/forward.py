"""One window through nnU-Net's plain 3-D U-Net (31 M parameters, 128 x 128 x 128): torch as nnU-Net
runs it, compared with the backends of our engine.

    python benchmarks/forward.py [--runs 3] [--patch 128]

For each backend, the script also prints the largest difference of a probability from torch in
float32, and the share of voxels whose most probable class is the same. The weights are random, so
the network is uncertain everywhere and agreement is lower than with trained weights.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch

from delineate.core.plan import Network
from delineate.inference import int8
from delineate.inference import openvino as compiled
from delineate.inference.engine import fast_dtype, forward
from delineate.networks.build import build, filled, weights_of
from measure import keep, seconds

WIDTHS = (32, 64, 128, 256, 320, 320)


def nnunet_3d(classes: int = 3, widths: tuple[int, ...] = WIDTHS) -> Network:
    """The network that nnU-Net plans for patches of 128 x 128 x 128."""
    stages = len(widths)
    return Network(
        dims=3,
        channels=1,
        classes=classes,
        widths=widths,
        strides=((2, 2, 2),) * (stages - 1),
        kernels=((3, 3, 3),) * stages,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--patch", type=int, default=128)
    a = parser.parse_args()
    net, size = nnunet_3d(), (a.patch,) * 3
    weights, fast = weights_of(build(net, 0)), fast_dtype(torch.device("cpu"))
    x = torch.randn(1, 1, *size, generator=torch.Generator().manual_seed(0))
    plain = filled(net, weights).to(memory_format=torch.contiguous_format)

    def as_nnunet_does() -> torch.Tensor:
        with torch.inference_mode():
            return plain(x).softmax(1)  # type: ignore[no-any-return]

    ways: dict[str, Any] = {"torch float32, as nnU-Net": as_nnunet_does}
    module = filled(net, weights)
    for dtype in dict.fromkeys((torch.float32, fast)):
        name = str(dtype).removeprefix("torch.")
        ways[f"torch {name}, channels last"] = lambda dtype=dtype: forward(module, x, 3, dtype)
        if compiled.available():
            graph = compiled.compiled(lambda: filled(net, weights), (1, *size), dtype)
            assert graph is not None
            ways[f"OpenVINO {name}"] = lambda graph=graph, dtype=dtype: forward(graph, x, 3, dtype)
    if compiled.available():
        # INT8 needs the range of every layer's input, observed here on the same window.
        with int8.RangeObserver(module) as observer:
            forward(module, x, 3, torch.float32)
        bounds = observer.bounds()
        graph = compiled.compiled(
            lambda: int8.rounded(filled(net, weights), bounds), (1, *size), fast
        )
        assert graph is not None
        ways["OpenVINO int8"] = lambda graph=graph: forward(graph, x, 3, fast)
    reference, found = as_nnunet_does(), {}
    for name, way in ways.items():
        out = way()
        found[name] = {
            "seconds": round(seconds(way, a.runs), 3),
            "largest difference of a probability": round(float((out - reference).abs().max()), 6),
            "voxels of the same class": round(
                float((out.argmax(1) == reference.argmax(1)).float().mean()), 6
            ),
        }
    peer = found["torch float32, as nnU-Net"]["seconds"]
    for one in found.values():
        one["times as fast"] = round(peer / one["seconds"], 2)
    keep("forward", {"patch": size, "runs": a.runs, "ways": found})


if __name__ == "__main__":
    main()
