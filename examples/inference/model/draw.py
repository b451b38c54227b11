"""Draws pictures of printed characters: the training data and the test data of `glyph`, and the demo's pictures."""

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from fonts import Family

LABELS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
CANVAS = 64  # pixels a picture is drawn at
SIDE = 32  # pixels the network sees


def coverage(face: str, char: str, size: float, dx: float = 0.0, dy: float = 0.0) -> Image.Image:
    """The character's ink, centred by its own outline and moved by (dx, dy): 0 nothing, 255 covered."""
    # BASIC: the same shapes whether or not the machine has libraqm.
    font = ImageFont.truetype(face, size, layout_engine=ImageFont.Layout.BASIC)
    left, top, right, bottom = font.getbbox(char)
    mask = Image.new("L", (CANVAS, CANVAS), 0)
    at = (CANVAS / 2 - (left + right) / 2 + dx, CANVAS / 2 - (top + bottom) / 2 + dy)
    ImageDraw.Draw(mask).text(at, char, font=font, fill=255)
    return mask


def clean(face: str, char: str) -> Image.Image:
    """Black on white, upright, 40 px: what a scan of a label looks like."""
    ink = np.asarray(coverage(face, char, 40), dtype=np.float32) / 255
    return Image.fromarray(np.uint8(np.rint((1 - ink) * 255)))


def augmented(rng: np.random.Generator, face: str, char: str) -> Image.Image:
    """As a camera would see it: any size, turned, sheared, blurred, unevenly lit, noisy, dark on light or light on dark."""
    mask = coverage(face, char, rng.uniform(28, 56), *rng.uniform(-4, 4, size=2))
    angle = math.radians(rng.uniform(-15, 15))
    shear = rng.uniform(-0.2, 0.2)
    cos, sin = math.cos(angle), math.sin(angle)
    # Output → input coordinates around the centre: rotation times shear.
    a, b, d, e = cos, cos * shear - sin, sin, sin * shear + cos
    c = CANVAS / 2
    mask = mask.transform(
        mask.size, Image.Transform.AFFINE, (a, b, c - a * c - b * c, d, e, c - d * c - e * c), Image.Resampling.BICUBIC
    )
    mask = mask.filter(ImageFilter.GaussianBlur(rng.uniform(0, 1.6)))
    ink = np.asarray(mask, dtype=np.float32) / 255

    back = rng.uniform(0, 1)
    fore = rng.uniform(0, 1)
    while abs(fore - back) < 0.25:
        back, fore = rng.uniform(0, 1, size=2)
    axis = np.linspace(-0.5, 0.5, CANVAS, dtype=np.float32)
    slope_x, slope_y = rng.uniform(-0.15, 0.15, size=2)
    light = slope_x * axis[None, :] + slope_y * axis[:, None]
    picture = back + (fore - back) * ink + light
    picture += rng.normal(0, rng.uniform(0, 0.08), size=picture.shape).astype(np.float32)
    return Image.fromarray(np.uint8(np.rint(np.clip(picture, 0, 1) * 255)))


def shrink(picture: Image.Image) -> np.ndarray:
    """To the size the network sees, as bytes."""
    return np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR), dtype=np.uint8)


def standardise(pictures: np.ndarray) -> np.ndarray:
    """Bytes (n, 32, 32) → floats, each picture with mean 0 and deviation 1. The server does the same."""
    x = pictures.astype(np.float32) / 255
    mean = x.mean(axis=(1, 2), keepdims=True)
    deviation = x.std(axis=(1, 2), keepdims=True)
    return (x - mean) / np.maximum(deviation, 1e-5)


def augmented_set(families: tuple[Family, ...], count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """`count` augmented pictures and their classes. A family is drawn first, then a face: large families do not dominate."""
    rng = np.random.default_rng(seed)
    pictures = np.empty((count, SIDE, SIDE), dtype=np.uint8)
    classes = np.empty(count, dtype=np.int32)
    for i in range(count):
        faces = families[rng.integers(len(families))].files()
        face = str(faces[rng.integers(len(faces))])
        classes[i] = rng.integers(len(LABELS))
        pictures[i] = shrink(augmented(rng, face, LABELS[classes[i]]))
    return pictures, classes


def clean_set(families: tuple[Family, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Every character in every face once, clean."""
    faces = [str(file) for family in families for file in family.files()]
    pairs = [(face, index) for face in faces for index in range(len(LABELS))]
    pictures = np.stack([shrink(clean(face, LABELS[index])) for face, index in pairs])
    return pictures, np.array([index for _, index in pairs], dtype=np.int32)
