#!/usr/bin/env python3
"""Writes the small models beside itself that the server's tests load: each is odd in one way. Needs onnx and numpy."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HERE = Path(__file__).resolve().parent
FLOAT = TensorProto.FLOAT


def write(name, nodes, inputs, outputs, weights=()):
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info(n, t, s) for n, t, s in inputs],
        [helper.make_tensor_value_info(n, t, s) for n, t, s in outputs],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="tests")
    onnx.checker.check_model(model, full_check=True)
    (HERE / f"{name}.onnx").write_bytes(model.SerializeToString())


node = helper.make_node
mean_rgb = [node("GlobalAveragePool", ["x"], ["pool"]), node("Flatten", ["pool"], ["y"])]
softmax = [*mean_rgb[:1], node("Flatten", ["pool"], ["flat"]), node("Softmax", ["flat"], ["y"], axis=1)]

# What works: the classes are the three colours, the score of each its average.
write("open-size", mean_rgb, [("x", FLOAT, ["batch", 3, "h", "w"])], [("y", FLOAT, ["batch", 3])])
write("softmax", softmax, [("x", FLOAT, [1, 3, 8, 8])], [("y", FLOAT, [1, 3])])
write(
    "channels-last",
    [node("ReduceMean", ["x"], ["y"], axes=[1, 2], keepdims=0)],
    [("x", FLOAT, [1, 8, 8, 3])],
    [("y", FLOAT, [1, 3])],
)
write(
    "two-outputs",
    [*mean_rgb, node("ArgMax", ["y"], ["best"], axis=1, keepdims=0)],
    [("x", FLOAT, [1, 3, 8, 8])],
    [("y", FLOAT, [1, 3]), ("best", TensorProto.INT64, [1])],
)

# What cannot be served.
write(
    "two-inputs",
    [node("Add", ["a", "b"], ["y"])],
    [("a", FLOAT, [1, 3, 8, 8]), ("b", FLOAT, [1, 3, 8, 8])],
    [("y", FLOAT, [1, 3, 8, 8])],
)
write("integers", [node("Identity", ["x"], ["y"])], [("x", TensorProto.INT64, [1, 3, 8, 8])],
      [("y", TensorProto.INT64, [1, 3, 8, 8])])
write("vector", [node("Identity", ["x"], ["y"])], [("x", FLOAT, [1, 10])], [("y", FLOAT, [1, 10])])
write("five-channels", mean_rgb, [("x", FLOAT, [1, 5, 8, 8])], [("y", FLOAT, [1, 5])])
write("segmentation", [node("Relu", ["x"], ["y"])], [("x", FLOAT, [1, 3, 8, 8])], [("y", FLOAT, [1, 3, 8, 8])])
write("huge", mean_rgb, [("x", FLOAT, [1, 3, 4096, 4096])], [("y", FLOAT, [1, 3])])
write(
    "wrong-weights",
    [node("Flatten", ["x"], ["flat"]), node("Reshape", ["flat", "shape"], ["y"])],
    [("x", FLOAT, ["n", 3, 8, 8])],
    [("y", FLOAT, [7, 7])],
    [("shape", np.array([7, 7], np.int64))],
)
