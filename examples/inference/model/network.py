"""`glyph`: a ResNet of a stem and three residual blocks, 79,108 parameters. Once as jax functions, once as an ONNX graph."""

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from draw import LABELS, SIDE

WIDTHS = (16, 32, 64)
OPSET = 17
IR_VERSION = 8

Parameters = dict[str, jax.Array]


def _shapes() -> dict[str, tuple[int, ...]]:
    """Kernels are (height, width, in, out): what XLA is fastest with on a CPU."""
    shapes: dict[str, tuple[int, ...]] = {"stem.w": (3, 3, 1, WIDTHS[0]), "stem.b": (WIDTHS[0],)}
    inner = WIDTHS[0]
    for n, outer in enumerate(WIDTHS):
        shapes |= {f"block{n}.a.w": (3, 3, inner, outer), f"block{n}.a.b": (outer,)}
        shapes |= {f"block{n}.b.w": (3, 3, outer, outer), f"block{n}.b.b": (outer,)}
        if inner != outer:
            shapes |= {f"block{n}.skip.w": (1, 1, inner, outer), f"block{n}.skip.b": (outer,)}
        inner = outer
    return shapes | {"head.w": (inner, len(LABELS)), "head.b": (len(LABELS),)}


def initial(seed: int) -> Parameters:
    """He weights; the second convolution of a block starts small, so that a block starts close to the identity."""
    rng = np.random.default_rng(seed)
    parameters = {}
    for name, shape in _shapes().items():
        if name.endswith(".b"):
            parameters[name] = jnp.zeros(shape, jnp.float32)
            continue
        deviation = np.sqrt(2 / np.prod(shape[:-1]))
        if name.endswith(".b.w"):
            deviation *= 0.3
        parameters[name] = jnp.asarray(rng.normal(0, deviation, shape), jnp.float32)
    return parameters


def _conv(p: Parameters, name: str, x: jax.Array, stride: int = 1) -> jax.Array:
    w = p[f"{name}.w"]
    pad = w.shape[0] // 2
    y = jax.lax.conv_general_dilated(
        x, w, (stride, stride), [(pad, pad), (pad, pad)], dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return y + p[f"{name}.b"]


def logits(p: Parameters, x: jax.Array) -> jax.Array:
    """(n, 32, 32, 1) → (n, 36)."""
    x = jax.nn.relu(_conv(p, "stem", x))
    for n in range(len(WIDTHS)):
        stride = 1 if n == 0 else 2
        skip = _conv(p, f"block{n}.skip", x, stride) if f"block{n}.skip.w" in p else x
        x = jax.nn.relu(_conv(p, f"block{n}.a", x, stride))
        x = jax.nn.relu(_conv(p, f"block{n}.b", x) + skip)
    return x.mean(axis=(1, 2)) @ p["head.w"] + p["head.b"]


def to_onnx(p: Parameters) -> onnx.ModelProto:
    """The same network as an ONNX graph with a fixed batch of 1, channels first."""
    nodes, weights = [], []

    def weight(name: str) -> str:
        value = np.asarray(p[name])
        if value.ndim == 4:
            value = value.transpose(3, 2, 0, 1)  # (h, w, in, out) → (out, in, h, w)
        weights.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def add(op: str, inputs: list[str], output: str, **attributes: object) -> str:
        nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def conv(name: str, x: str, stride: int = 1) -> str:
        size = p[f"{name}.w"].shape[0]
        return add(
            "Conv", [x, weight(f"{name}.w"), weight(f"{name}.b")], name,
            kernel_shape=[size, size], strides=[stride, stride], pads=[size // 2] * 4,
        )

    x = add("Relu", [conv("stem", "picture")], "stem.relu")
    for n in range(len(WIDTHS)):
        stride = 1 if n == 0 else 2
        skip = conv(f"block{n}.skip", x, stride) if f"block{n}.skip.w" in p else x
        inner = add("Relu", [conv(f"block{n}.a", x, stride)], f"block{n}.relu")
        x = add("Relu", [add("Add", [conv(f"block{n}.b", inner), skip], f"block{n}.sum")], f"block{n}")
    x = add("Flatten", [add("GlobalAveragePool", [x], "pool")], "features")
    add("Gemm", [x, weight("head.w"), weight("head.b")], "logits")

    graph = helper.make_graph(
        nodes, "glyph",
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, [1, 1, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, len(LABELS)])],
        weights,
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="wasmlet-glyph"
    )
    onnx.checker.check_model(model, full_check=True)
    return model
