"""One window through nnU-Net's plain U-Nets: torch as nnU-Net runs it and tuned, OpenVINO alone on
the same graph, and our engine as `predict` uses it.

    python benchmarks/forward.py [--before CHECKOUT] [--runs 5] [--windows 3:128 3:96 2:512]

A window is DIMENSIONS:SIZE; the network for 3:128 has 31 million parameters. Each way runs in a
process of its own, with the same weights and the same window, after a warm-up, and their runs
alternate: median seconds and memory in addition to what is held before. Tuned is torch in
channels-last memory and, where the processor has hardware for it, bfloat16 autocast. OpenVINO alone
is one inference request with its default settings. With ``--before`` an earlier checkout of this
project is measured too.

The script also prints the largest difference of a probability from torch in float32, and the share
of voxels whose most probable class is the same. The weights are random, so the network is uncertain
everywhere and agreement is lower than with trained weights.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from delineate.core.plan import Network
from measure import Way, checkout, children_in_turns, commit, keep

WIDTHS = (32, 64, 128, 256, 320, 320)
WIDTHS_2D = (32, 64, 128, 256, 512, 512, 512, 512)
WAYS = {
    "torch float32, as nnU-Net": "plain",
    "torch tuned": "tuned",
    "OpenVINO alone": "alone",
    "delineate": "ours",
    "delineate, float32": "float32",
    "delineate, int8": "int8",
}
CODE = """
import json, sys
import torch
from delineate.core.plan import Network
from delineate.inference import openvino as compiled
from delineate.inference.engine import fast_dtype, forward
from delineate.networks.build import build, filled, weights_of

net, size, runs, way = Network(**json.loads(sys.argv[1])), json.loads(sys.argv[2]), *sys.argv[3:5]
dims, runs = net.dims, int(runs)
weights, fast = weights_of(build(net, 0)), fast_dtype(torch.device("cpu"))
flat = torch.randn(1, 1, *size, generator=torch.Generator().manual_seed(0))
x = flat if dims == 3 else flat[..., None]
last = torch.channels_last_3d if dims == 3 else torch.channels_last
dtype = torch.float32


def graph(make, dtype):
    found = compiled.compiled(make, (1, *size), dtype)
    if found is None:
        raise SystemExit("OpenVINO does not support a layer of this network")
    return found


if way == "plain":
    module = filled(net, weights).to(memory_format=torch.contiguous_format)

    def work():
        with torch.inference_mode():
            return module(flat).softmax(1)

elif way == "alone":
    import openvino

    module, dtype = filled(net, weights), fast
    converted = openvino.convert_model(module, example_input=flat)
    converted.reshape(list(flat.shape))
    hint = "bf16" if fast == torch.bfloat16 else "f32"
    request = openvino.Core().compile_model(
        converted, "CPU", {"INFERENCE_PRECISION_HINT": hint}
    ).create_infer_request()
    given = openvino.Tensor(flat.numpy(), shared_memory=True)

    def work():
        request.infer([given], share_inputs=True, share_outputs=True)
        return torch.from_numpy(request.get_output_tensor().data)

else:
    dtype = fast if way != "float32" else torch.float32
    if way == "int8":
        from delineate.inference import int8

        # INT8 needs the range of every layer's input, observed here on the same window.
        module = filled(net, weights)
        with int8.RangeObserver(module) as observer:
            forward(module, x, dims, torch.float32)
        bounds = observer.bounds()
        network = graph(lambda: int8.rounded(filled(net, weights), bounds), fast)
    elif way == "tuned":
        network = filled(net, weights).to(memory_format=last)
    else:
        network = graph(lambda: filled(net, weights), dtype)

    def work():
        return forward(network, x, dims, dtype)


found = measured(work, runs)
out = work()
out = out.float().softmax(1) if way == "alone" else out.float()
if len(sys.argv) > 5:
    import numpy as np

    np.save(sys.argv[5], out.reshape(net.classes, -1).numpy())
print(json.dumps(found | {"precision": str(dtype).removeprefix("torch.")}))
"""


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


def network_for(dims: int, size: int) -> Network:
    """The network that nnU-Net plans for a patch of this size: its stages halve it to 4 voxels in
    3-D and 2-D, or 6.
    """
    if dims == 3:
        return nnunet_3d(widths=WIDTHS[: max(2, min(len(WIDTHS), (size // 4).bit_length()))])
    widths = WIDTHS_2D[: max(2, min(len(WIDTHS_2D), (size // 4).bit_length()))]
    return Network(
        dims=2,
        channels=1,
        classes=3,
        widths=widths,
        strides=((2, 2, 1),) * (len(widths) - 1),
        kernels=((3, 3, 1),) * len(widths),
    )


def measured(a: argparse.Namespace, dims: int, size: int) -> dict[str, Any]:
    """Every way on one window: figures, and agreement with torch in float32."""
    network = json.dumps(network_for(dims, size).model_dump(mode="json"))
    # Other benchmarks import this module in processes of earlier checkouts, which lack it.
    from delineate.inference.openvino import fast_precision

    words = (network, json.dumps([size] * dims), str(a.runs))
    with tempfile.TemporaryDirectory() as folder:
        ways = {
            name: Way(CODE, (*words, way, f"{folder}/{way}.npy"))
            for name, way in WAYS.items()
            if way != "float32" or fast_precision() != "float32"
        }
        if a.before:
            ways["before"] = Way(CODE, (*words, "ours"), environment=checkout(a.before))
        found: dict[str, dict[str, Any]] = children_in_turns(ways)
        reference = np.load(f"{folder}/plain.npy")
        for name, way in WAYS.items():
            if name not in ways:
                continue
            scores = np.load(f"{folder}/{way}.npy")
            found[name]["largest difference of a probability"] = round(
                float(np.abs(scores - reference).max()), 6
            )
            found[name]["voxels of the same class"] = round(
                float((scores.argmax(0) == reference.argmax(0)).mean()), 6
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before", type=Path, help="another checkout of this project")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--windows", nargs="+", default=["3:128", "3:96", "2:512"])
    a = parser.parse_args()
    record: dict[str, Any] = {"runs": a.runs, "windows": {}}
    if a.before:
        record["before"] = commit(a.before)
    for window in a.windows:
        dims, size = (int(n) for n in window.split(":"))
        record["windows"]["x".join([str(size)] * dims)] = measured(a, dims, size)
    keep("forward", record)


if __name__ == "__main__":
    main()
