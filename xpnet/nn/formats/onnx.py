"""Networks as ONNX models, for prediction elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...backend import to_numpy
from ...files.storage import replace_file
from ..layers import BatchNorm, LeakyReLU, Linear, ReLU, Standardize, Tanh
from ..scaling import SCALING_DTYPE, rounds_away, working_scaling
from .convert import folded, hosted, single

if TYPE_CHECKING:
    from ..network import Network

__all__ = ["to_onnx"]


def to_onnx(
    network: Network, path: str | Path | None = None, *, input_dtype: str | None = None, softmax: bool = False
) -> Any:
    """Return a network as an ONNX model for prediction, and write it to a file where one is named.

    Batch norm with its running statistics is folded into the Linear before it, dropout is left out, Standardize
    becomes Sub and Mul, in float64 if the network's dtype would round the offset away. The input is ``x``
    (n, in_features), the output ``logits`` or ``probabilities`` (n, out_features), of the network's dtype; n is free.

    Parameters
    ----------
    network : Network
        A single network.
    path : path, optional
        The file; it is whole or not there.
    input_dtype : {"uint8", "float32", "float64"}, optional
        The dtype of x, by default the network's, or float64 if the network standardises features whose offset its
        dtype would round away, and so the features themselves. uint8 is for pixels as they are.
    softmax : bool
        End with the classes' probabilities.

    Returns
    -------
    onnx.ModelProto
        Opset 17, checked by ``onnx.checker``.

    Raises
    ------
    ModuleNotFoundError
        If onnx is not installed.
    ValueError
        If the network is several models, or the input's dtype is another one.
    TypeError
        If it has a layer that ONNX is not told of here.
    """
    try:
        import onnx  # type: ignore[import-not-found, import-untyped, unused-ignore]
        from onnx import TensorProto, helper, numpy_helper
    except ImportError as error:
        raise ModuleNotFoundError(f"to_onnx needs onnx ({error}): pip install 'xpnet[onnx]'", name="onnx") from error
    network = folded(single(network, "to_onnx"))
    dtype = to_numpy(network.arrays[network.architecture.parameters[0]]).dtype.name
    kinds = {"uint8": TensorProto.UINT8, "float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE}
    first = network.architecture.inputs
    given = input_dtype or dtype
    if first and not input_dtype:
        offset, scale = (to_numpy(network.arrays[name]) for name in first)
        given = SCALING_DTYPE if rounds_away(offset, scale, np.dtype(dtype)) else dtype
    if given not in kinds:
        raise ValueError(f"to_onnx: expected input_dtype {', '.join(kinds)}, got {input_dtype!r}")
    nodes: list[Any] = []
    constants: list[Any] = []
    value = "x"

    def add(operation: str, *own: NDArray[Any], **attributes: Any) -> None:
        nonlocal value
        names = [f"{operation.lower()}{len(nodes)}_{i}" for i in range(len(own))]
        constants.extend(numpy_helper.from_array(np.ascontiguousarray(a), name)
                         for a, name in zip(own, names, strict=True))
        nodes.append(helper.make_node(operation, [value, *names], [f"y{len(nodes)}"], **attributes))
        value = f"y{len(nodes) - 1}"

    def cast(before: str, after: str) -> None:
        if before != after:
            add("Cast", to=kinds[after])

    if not first:
        cast(given, dtype)
    for layer, own in hosted(network):
        if isinstance(layer, Linear):
            add("Gemm", *own)
        elif isinstance(layer, BatchNorm):
            gamma, beta, mean, var = own  # not ONNX's own, whose eps is a float32
            add("Sub", mean)
            add("Mul", (gamma / np.sqrt(np.asarray(var, np.float64) + layer.eps)).astype(dtype))
            add("Add", beta)
        elif isinstance(layer, Standardize):
            offset, scale = own
            own = list(working_scaling(np.empty((0, 0), given), offset, scale, np.dtype(dtype)))
            cast(given, own[0].dtype.name)
            add("Sub", own[0])
            add("Mul", own[1])
            cast(own[0].dtype.name, dtype)
        elif isinstance(layer, ReLU):
            add("Relu")
        elif isinstance(layer, LeakyReLU):
            add("PRelu", np.asarray([layer.slope], dtype))  # LeakyRelu's slope is a float32
        elif isinstance(layer, Tanh):
            add("Tanh")
        else:
            raise TypeError(f"to_onnx: {layer!r} is none of xpnet's own layers; export the network without it")
    output = "probabilities" if softmax else "logits"
    nodes.append(helper.make_node("Softmax" if softmax else "Identity", [value], [output]))
    shapes = network.architecture.in_features, network.architecture.out_features
    graph = helper.make_graph(
        nodes, "xpnet", [helper.make_tensor_value_info("x", kinds[given], ["n", shapes[0]])],
        [helper.make_tensor_value_info(output, kinds[dtype], ["n", shapes[1]])], constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="xpnet")
    onnx.checker.check_model(model, full_check=True)
    if path is not None:
        replace_file(Path(path), model.SerializeToString(deterministic=True))
    return model
