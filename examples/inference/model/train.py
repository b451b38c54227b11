#!/usr/bin/env python3
"""Trains `glyph` on pictures it draws itself and writes glyph.onnx, labels.txt and REPORT.md beside itself.

    python3 -m venv venv && venv/bin/pip install -r requirements.txt && venv/bin/python train.py

The model is committed; nobody has to run this to use it. CI measures the committed file with ./check.
"""

import argparse
import math
import platform
import time
from functools import partial
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime

import draw
import evaluate
import fonts
import network

HERE = Path(__file__).resolve().parent
PEAK_RATE = 2e-3
WARM_UP_STEPS = 60  # without a warm-up and standardised pictures it never leaves ln 36
WEIGHT_DECAY = 1e-4
BATCH = 64


def rate_at(step: int, steps: int) -> float:
    """Linear warm-up, then a cosine down to zero."""
    if step < WARM_UP_STEPS:
        return PEAK_RATE * (step + 1) / WARM_UP_STEPS
    return PEAK_RATE * 0.5 * (1 + math.cos(math.pi * (step - WARM_UP_STEPS) / (steps - WARM_UP_STEPS)))


def loss_of(p: network.Parameters, x: jax.Array, classes: jax.Array) -> jax.Array:
    log_p = jax.nn.log_softmax(network.logits(p, x))
    return -jnp.mean(jnp.take_along_axis(log_p, classes[:, None], axis=1))


@partial(jax.jit, donate_argnums=(0, 1, 2))
def adam(p, m, v, step, rate, x, classes):
    """One step of Adam with decoupled weight decay."""
    loss, g = jax.value_and_grad(loss_of)(p, x, classes)
    tree = jax.tree.map
    m = tree(lambda m, g: 0.9 * m + 0.1 * g, m, g)
    v = tree(lambda v, g: 0.999 * v + 0.001 * g * g, v, g)
    c1, c2 = 1 - 0.9 ** (step + 1), 1 - 0.999 ** (step + 1)
    p = tree(
        lambda p, m, v: p - rate * (m / c1 / (jnp.sqrt(v / c2) + 1e-8) + WEIGHT_DECAY * p * (p.ndim > 1)), p, m, v
    )
    return p, m, v, loss


def train(pictures: np.ndarray, classes: np.ndarray, epochs: int, seed: int) -> network.Parameters:
    p = network.initial(seed)
    m, v = jax.tree.map(jnp.zeros_like, p), jax.tree.map(jnp.zeros_like, p)
    order = np.random.default_rng(seed + 1)
    per_epoch = len(pictures) // BATCH
    steps = per_epoch * epochs
    step, began = 0, time.monotonic()
    for epoch in range(epochs):
        losses = []
        for batch in order.permutation(len(pictures))[: per_epoch * BATCH].reshape(per_epoch, BATCH):
            x = draw.standardise(pictures[batch])[..., None]
            p, m, v, loss = adam(p, m, v, step, rate_at(step, steps), x, classes[batch])
            losses.append(loss)
            step += 1
        print(f"epoch {epoch + 1}/{epochs}: loss {np.mean(losses):.4f}, {time.monotonic() - began:.0f} s", flush=True)
    return p


def check_same_answers(model: onnx.ModelProto, p: network.Parameters) -> None:
    """The exported graph must compute what was trained."""
    pictures, _ = draw.clean_set(fonts.CHECK[:1])
    x = draw.standardise(pictures)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    ours = np.asarray(network.logits(p, jnp.asarray(x[..., None])))
    theirs = np.concatenate([session.run(None, {"picture": one[None, None]})[0] for one in x])
    np.testing.assert_allclose(theirs, ours, rtol=1e-3, atol=1e-3)


def report(args: argparse.Namespace, model: Path, seconds: float) -> str:
    augmented, clean = evaluate.measure(str(model))
    count = sum(int(np.prod(w.dims)) for w in onnx.load(model).graph.initializer)
    names = ("jax", "jaxlib", "numpy", "onnx", "onnxruntime", "pillow")
    confused = "\n".join(f"| {t} | {a} | {n} |" for t, a, n in augmented.confused)
    lookalikes = "\n".join(f"| {t} | {a} | {n} |" for t, a, n in clean.confused) or "| - | - | 0 |"

    def table(families: tuple[fonts.Family, ...]) -> str:
        return "\n".join(f"| {f.name} | {len(f.faces)} | {f.package} | {f.licence} |" for f in families)

    faces = sum(len(f.faces) for f in fonts.TRAIN)
    unseen = sum(len(f.faces) for f in fonts.CHECK)
    return f"""# How good `glyph` is

Written by train.py; `./check` measures the committed file again and fails if it got worse.

One printed character (0-9, A-Z) per picture. Measured with onnxruntime on {len(fonts.CHECK)} font families ({unseen} faces) that were never
trained on, nor was any font that shares their design:

| pictures | right |
|---|---|
| {evaluate.AUGMENTED_COUNT} augmented (turned ±15°, sheared, blurred, noisy, unevenly lit, any colours; seed {evaluate.AUGMENTED_SEED}) | {augmented} |
| every character once per face, clean, black on white | {clean} |

What it mixes up, augmented:

| printed | read as | times |
|---|---|---|
{confused}

and clean:

| printed | read as | times |
|---|---|---|
{lookalikes}

0 and O, and I and 1, have nearly the same shape in several fonts: without neighbours nobody can tell them apart.

## What it is

{count:,} parameters, {model.stat().st_size:,} bytes, ONNX opset {network.OPSET}, IR {network.IR_VERSION}; input `picture` float32 1x1x{draw.SIDE}x{draw.SIDE}, standardised (mean 0, deviation 1 within
each picture), output `logits` float32 1x{len(draw.LABELS)}, in the order of labels.txt. It reads a picture of one character that fills about half of it;
it is not a text finder, and lower case was never shown to it.

## How it was made

{args.pictures:,} pictures drawn with {faces} faces (seed {args.seed}), {args.epochs} epochs, batch {BATCH}, Adam, peak rate {PEAK_RATE} after {WARM_UP_STEPS} steps, cosine to 0, weight
decay {WEIGHT_DECAY}; {seconds / 60:.0f} minutes. Python {platform.python_version()}, {', '.join(f'{n} {version(n)}' for n in names)}. The same seed draws the same pictures; the weights
may differ in the last digits on another processor.

No weights and no pictures of anybody else went in. The fonts were only drawn with; none is part of the model or of this repository.

Measured on:

| family | faces | Debian package | licence |
|---|---|---|---|
{table(fonts.CHECK)}

Trained on:

| family | faces | Debian package | licence |
|---|---|---|---|
{table(fonts.TRAIN)}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=80_000)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path, default=HERE, help="folder for glyph.onnx, labels.txt and REPORT.md")
    args = parser.parse_args()
    fonts.require(fonts.TRAIN + fonts.CHECK)

    began = time.monotonic()
    pictures, classes = draw.augmented_set(fonts.TRAIN, args.pictures, args.seed)
    print(f"drew {args.pictures} pictures in {time.monotonic() - began:.0f} s", flush=True)
    p = train(pictures, classes, args.epochs, args.seed)
    seconds = time.monotonic() - began

    model = network.to_onnx(p)
    check_same_answers(model, p)
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / "glyph.onnx"
    onnx.save(model, file)
    (args.out / "labels.txt").write_text("".join(f"{label}\n" for label in draw.LABELS))
    (args.out / "REPORT.md").write_text(report(args, file, seconds))
    print(f"wrote {file}; {(args.out / 'REPORT.md').read_text().splitlines()[9]}")


if __name__ == "__main__":
    main()
