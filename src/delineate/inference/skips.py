"""Skip connections of a compiled network without copies.

A decoder joins a skip connection with what comes from below and convolves both. Joining copies
them, and at full resolution the copy is the largest array of a U-Net. The convolution of the joined
channels is the sum of one convolution of each part, which OpenVINO adds up in place:

    Convolution(Concat(skip, below), w)
        ->  Convolution(skip, w[:, :c]) + Convolution(below, w[:, c:])

The skip's own part is computed before the decoder begins, so that the skip itself is not kept. For
float32 only: in bfloat16 the part of a sum would be rounded. This module knows OpenVINO's
operations, no plan and no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class _Joined:
    """A convolution of two joined tensors, the earlier one first, with the weights of each."""

    convolution: Any
    early: Any
    late: Any
    early_weights: np.ndarray[Any, Any]
    late_weights: np.ndarray[Any, Any]


def without_copies(model: Any) -> int:
    """Replace convolutions of two joined tensors in an OpenVINO ``model``, in place.

    The logits stay the same but for the order of floating-point additions.

    Returns:
        The number of replaced convolutions; 0 if the model has none.
    """
    from openvino import opset1

    ordered = model.get_ordered_ops()
    place = {op.get_name(): n for n, op in enumerate(ordered)}
    found = [one for op in ordered if (one := _joined(op, place)) is not None]
    if not found:
        return 0
    # What the decoder begins with. Operations are ordered, so it comes before no tensor that it
    # depends on.
    begin = found[0].late.get_node().input(0)
    started = place[begin.get_source_output().get_node().get_name()]
    waited = []
    for one in found:
        first = _convolution(one.convolution, one.early, one.early_weights)
        second = _convolution(one.convolution, one.late, one.late_weights)
        # OpenVINO adds the second input to the first one in place.
        one.convolution.output(0).replace(opset1.add(second, first).output(0))
        if place[one.early.get_node().get_name()] < started:
            waited.append(_first_voxel(first))
    if waited:
        _begin_after(begin, waited)
    model.validate_nodes_and_infer_types()
    return len(found)


def _joined(op: Any, place: dict[str, int]) -> _Joined | None:
    """The parts of a convolution with constant weights of two tensors that are joined for it alone;
    None for any other operation.
    """
    if op.get_type_name() != "Convolution":
        return None
    source, weights = (port.get_source_output() for port in op.inputs())
    concat, constant = source.get_node(), weights.get_node()
    if constant.get_type_name() != "Constant" or concat.get_type_name() != "Concat":
        return None
    if (
        concat.get_input_size() != 2
        or concat.get_attributes()["axis"] != 1
        or len(source.get_target_inputs()) != 1
    ):
        return None
    outputs = [port.get_source_output() for port in concat.inputs()]
    channels = int(outputs[0].get_shape()[1])
    parts = list(zip(outputs, np.split(constant.data, [channels], axis=1), strict=True))
    parts.sort(key=lambda part: place[part[0].get_node().get_name()])
    (early, own), (late, other) = parts
    # Both are computed, from something: the network's input is no skip connection.
    if not late.get_node().inputs() or early.get_node() == late.get_node():
        return None
    return _Joined(op, early, late, own, other)


def _convolution(like: Any, x: Any, weights: np.ndarray[Any, Any]) -> Any:
    """The convolution of x with the options of another one."""
    from openvino import op, opset1

    options = like.get_attributes()
    return opset1.convolution(
        x,
        op.Constant(np.ascontiguousarray(weights)),
        *(options[name] for name in ("strides", "pads_begin", "pads_end", "dilations", "auto_pad")),
    )


def _first_voxel(x: Any) -> Any:
    """Zero, (1, 1, …), that depends on the first voxel of x (B, C, …)."""
    from openvino import op, opset1

    rank = len(x.get_output_shape(0))
    low, high, step = (op.Constant(np.full(rank, n, np.int64)) for n in (0, 1, 1))
    # A clamp gives zero also for values that are infinite.
    first = opset1.strided_slice(x, low, high, step, [0] * rank, [0] * rank)
    return opset1.clamp(first, 0.0, 0.0)


def _begin_after(port: Any, waited: list[Any]) -> None:
    """Add the zeros in ``waited`` to what an operation reads, so that they are computed before."""
    from openvino import opset1

    x = port.get_source_output()
    # The largest first, which is the first of a U-Net: its skip is no longer needed then.
    for zero in reversed(waited):
        x = opset1.add(x, zero).output(0)
    port.replace_source_output(x)
