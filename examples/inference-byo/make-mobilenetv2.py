#!/usr/bin/env python3
"""Writes an ONNX model of the shape and size of MobileNetV2 (1.0, 224x224, 1000 classes) with random weights.

    make-mobilenetv2.py FOLDER    writes FOLDER/model.onnx (14 MB) and FOLDER/labels.txt

For measuring: how long it takes and how much memory it needs does not depend on the weights. What it
answers does, so its answers mean nothing. Needs only Python 3; the same seed gives the same file.

The graph is the published one, with batch normalisation folded into the convolutions, as an export
for inference has it.
"""

import argparse
import random
import struct
from array import array
from math import prod, sqrt
from pathlib import Path

SEED = 42
CLASSES = 1000
# expansion, output channels, repeats, stride of the first
BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))

# The few pieces of protobuf that a model is made of (onnx.proto of ONNX IR version 8).


def varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def integer(field: int, number: int) -> bytes:
    return varint(field << 3) + varint(number)


def nested(field: int, content: bytes | str) -> bytes:
    content = content.encode() if isinstance(content, str) else content
    return varint(field << 3 | 2) + varint(len(content)) + content


def attribute(name: str, value: int | list[int]) -> bytes:
    if isinstance(value, int):
        return nested(5, nested(1, name) + integer(3, value) + integer(20, 2))
    return nested(5, nested(1, name) + b"".join(integer(8, v) for v in value) + integer(20, 7))


def node(op: str, inputs: list[str], output: str, **attributes: int | list[int]) -> bytes:
    content = b"".join(nested(1, i) for i in inputs) + nested(2, output) + nested(3, output) + nested(4, op)
    return nested(1, content + b"".join(attribute(n, v) for n, v in attributes.items()))


def tensor(name: str, dims: list[int], numbers: array) -> bytes:
    content = b"".join(integer(1, d) for d in dims) + integer(2, 1) + nested(8, name)
    return nested(5, content + nested(9, numbers.tobytes()))


def value(field: int, name: str, dims: list[int]) -> bytes:
    shape = b"".join(nested(1, integer(1, d)) for d in dims)
    return nested(field, nested(1, name) + nested(2, nested(1, integer(1, 1) + nested(2, shape))))


class Graph:
    """Collects nodes and weights; counts parameters."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.nodes: list[bytes] = []
        self.weights: list[bytes] = []
        self.parameters = 0

    def weight(self, name: str, dims: list[int], deviation: float) -> str:
        count = prod(dims)
        gauss = self.random.gauss
        numbers = array("f", (gauss(0, deviation) for _ in range(count)) if deviation else bytes(4 * count))
        assert struct.pack("=I", 1)[0] == 1, "raw data is little-endian"
        self.weights.append(tensor(name, dims, numbers))
        self.parameters += count
        return name

    def add(self, op: str, inputs: list[str], output: str, **attributes: int | list[int]) -> str:
        self.nodes.append(node(op, inputs, output, **attributes))
        return output

    def conv(self, x: str, name: str, inner: int, outer: int, size: int, stride: int, groups: int, clip: bool) -> str:
        # He's deviation keeps the numbers in range behind a clip, the smaller one where there is none.
        deviation = sqrt((2 if clip else 1) / (inner // groups * size * size))
        w = self.weight(f"{name}.weight", [outer, inner // groups, size, size], deviation)
        b = self.weight(f"{name}.bias", [outer], 0)
        y = self.add(
            "Conv", [x, w, b], name,
            kernel_shape=[size, size], strides=[stride, stride], pads=[size // 2] * 4, group=groups,
        )
        return self.add("Clip", [y, "zero", "six"], f"{name}.relu6") if clip else y


def mobilenetv2(seed: int) -> tuple[bytes, int]:
    """The model as bytes, and how many parameters it has."""
    graph = Graph(seed)
    constants = tensor("zero", [], array("f", [0.0])) + tensor("six", [], array("f", [6.0]))
    x = graph.conv("input", "stem", 3, 32, 3, 2, 1, clip=True)
    channels = 32
    for stage, (expansion, outer, repeats, first_stride) in enumerate(BLOCKS):
        for repeat in range(repeats):
            name, stride = f"block{stage}.{repeat}", first_stride if repeat == 0 else 1
            hidden, y = channels * expansion, x
            if expansion != 1:
                y = graph.conv(y, f"{name}.expand", channels, hidden, 1, 1, 1, clip=True)
            y = graph.conv(y, f"{name}.depthwise", hidden, hidden, 3, stride, hidden, clip=True)
            y = graph.conv(y, f"{name}.project", hidden, outer, 1, 1, 1, clip=False)
            x = graph.add("Add", [x, y], name) if stride == 1 and channels == outer else y
            channels = outer
    x = graph.conv(x, "head", channels, 1280, 1, 1, 1, clip=True)
    x = graph.add("Flatten", [graph.add("GlobalAveragePool", [x], "pool")], "features")
    w = graph.weight("classifier.weight", [1280, CLASSES], sqrt(1 / 1280))
    graph.add("Gemm", [x, w, graph.weight("classifier.bias", [CLASSES], 0)], "output")

    body = b"".join(graph.nodes) + nested(2, "mobilenetv2") + b"".join(graph.weights) + constants
    body += value(11, "input", [1, 3, 224, 224]) + value(12, "output", [1, CLASSES])
    opset = nested(8, nested(1, "") + integer(2, 17))
    return integer(1, 8) + nested(2, "make-mobilenetv2") + nested(7, body) + opset, graph.parameters


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=SEED)
    args = parser.parse_args()
    model, parameters = mobilenetv2(args.seed)
    args.folder.mkdir(parents=True, exist_ok=True)
    (args.folder / "model.onnx").write_bytes(model)
    (args.folder / "labels.txt").write_text("".join(f"class {n}\n" for n in range(CLASSES)))
    print(f"{args.folder / 'model.onnx'}: {len(model):,} bytes, {parameters:,} parameters")


if __name__ == "__main__":
    main()
