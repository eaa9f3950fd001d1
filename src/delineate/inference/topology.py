"""The topology of a network as text in its model, from which OpenVINO rebuilds it without torch.

The text is a list of OpenVINO operations, in an order in which each comes after its inputs:

    ["Convolution", "opset1", {attributes}, [[operation, output], ...]]

Constants are not stored twice: ["weight", name, shape] is an array of the network's weights, and
["value", dtype, shape, values] a small one, such as an axis. The text is covered by the checksum
and the id of its model. It names no file, and only operations that compute (``OPERATIONS``) with
limited attributes are built, so a forged text can read nothing but the weights it comes with. This
module knows neither torch nor how a network is compiled.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.inputs import parse_json

SCHEMA = 1
MOST_VALUES = 4096  # of a constant that is no weight
MOST_OPERATIONS = 100_000
# Operations of our networks in OpenVINO, and those that converted modules often have.
_OF_NETWORKS = """
Abs Add AvgPool BatchNormInference Broadcast Ceiling Clamp Concat Convert Convolution
ConvolutionBackpropData Divide Elu Equal Exp Floor Gather Gelu Greater GreaterEqual
GroupConvolution GroupConvolutionBackpropData GroupNormalization HSwish HardSigmoid Interpolate
Less LessEqual Log LogicalAnd LogicalNot LogicalOr MVN MatMul MaxPool Maximum Minimum Mish Mod
Multiply NormalizeL2 NotEqual PRelu Pad Power ReduceMax ReduceMean ReduceMin ReduceSum Relu
Reshape ScatterElementsUpdate ScatterNDUpdate Select Selu ShapeOf Sigmoid Slice SoftPlus Softmax
Split Sqrt SquaredDifference Squeeze StridedSlice Subtract Swish Tanh Tile Transpose Unsqueeze
VariadicSplit
"""
OPERATIONS = frozenset(_OF_NETWORKS.split())
OPSETS = frozenset(f"opset{n}" for n in range(1, 17))

Weights = Mapping[str, NDArray[Any]]


class TopologyError(ValueError):
    """The text is not one of this version, or does not fit the weights or OpenVINO."""


def text_of(model: Any, weights: Weights) -> str | None:
    """The topology of an OpenVINO ``model`` that was converted from a network with ``weights``.

    None if it has an operation that is not in ``OPERATIONS``, or a large constant that is none of
    the weights.
    """
    known = {_content(array): name for name, array in weights.items()}
    numbers: dict[str, int] = {}
    entries: list[list[Any]] = []
    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        if kind == "Result":
            continue
        if kind == "Constant":
            entry = _constant(node.data, node.get_element_type().get_type_name(), known)
        elif kind == "Parameter":
            entry = ["input"]
        else:
            inputs = [
                [numbers[s.get_node().get_name()], s.get_index()]
                for s in (port.get_source_output() for port in node.inputs())
            ]
            opset = node.get_type_info().version_id
            entry = [kind, opset, _plain(node.get_attributes()), inputs]
            if kind not in OPERATIONS or opset not in OPSETS:
                return None
        if entry is None:
            return None
        numbers[node.get_name()] = len(entries)
        entries.append(entry)
    last = model.output(0).get_node().input(0).get_source_output()
    output = [numbers[last.get_node().get_name()], last.get_index()]
    return json.dumps({"topology": SCHEMA, "operations": entries, "output": output})


def rebuilt(text: str, weights: Weights, shape: Sequence[int]) -> Any:
    """The OpenVINO model of a topology, for an input of ``shape``, float32.

    Raises:
        TopologyError: it cannot be built.
    """
    import openvino
    from openvino import opset1

    try:
        found = parse_json(text)
        if found.get("topology") != SCHEMA or len(found["operations"]) > MOST_OPERATIONS:
            raise TopologyError(f"topology {found.get('topology')!r}, expected {SCHEMA}")
        image = opset1.parameter(list(shape), np.float32)
        nodes: list[Any] = []
        for entry in found["operations"]:
            nodes.append(image if entry == ["input"] else _built(entry, nodes, weights))
        number, port = found["output"]
        return openvino.Model([opset1.result(nodes[number].output(port))], [image], "network")
    except TopologyError:
        raise
    except Exception as error:  # OpenVINO raises many kinds
        raise TopologyError(f"{type(error).__name__}: {error}") from error


def _content(array: NDArray[Any]) -> tuple[str, bytes]:
    flat = np.ascontiguousarray(array)
    return flat.dtype.name, flat.tobytes()


def _constant(
    array: NDArray[Any], dtype: str, known: Mapping[tuple[str, bytes], str]
) -> list[Any] | None:
    """The entry of a constant; None if it is large and no weight."""
    name = known.get(_content(array))
    if name is not None:
        return ["weight", name, list(array.shape)]
    if array.size > MOST_VALUES or array.dtype.name not in ("float32", "int32", "int64", "bool"):
        return None
    # Floats of float32 are exact as decimals of float64.
    return ["value", array.dtype.name, list(array.shape), array.ravel().tolist()]


def _plain(value: Any) -> Any:
    """Attributes as lists, numbers and words."""
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, np.generic):
        return value.item()
    return [_plain(one) for one in value]


def _built(entry: Sequence[Any], nodes: Sequence[Any], weights: Weights) -> Any:
    from openvino import op
    from openvino.utils.node_factory import NodeFactory

    if entry[0] == "weight":
        _, name, shape = entry
        if name not in weights or math.prod(shape) != weights[name].size:
            raise TopologyError(f"there are no weights {name!r} of shape {shape}")
        array = np.ascontiguousarray(weights[name]).reshape(shape)
        return op.Constant(array, shared_memory=True)
    if entry[0] == "value":
        _, dtype, shape, values = entry
        return op.Constant(np.array(values, dtype).reshape(shape))
    kind, opset, attributes, inputs = entry
    if kind not in OPERATIONS or opset not in OPSETS:
        raise TopologyError(f"the operation {kind!r} of {opset!r} is not known")
    arguments = [nodes[number].output(port) for number, port in inputs]
    return NodeFactory(opset).create(kind, arguments, attributes)
