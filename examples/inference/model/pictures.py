#!/usr/bin/env python3
"""Draws ../pictures: what the demo and the server's tests send, with fonts the model never saw.

    venv/bin/python pictures.py

The files are committed. They differ in what a server has to cope with: size, colour, transparency, format, aspect ratio.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

import draw
import fonts

FOLDER = Path(__file__).resolve().parent.parent / "pictures"
SEED = 2026


def face(name: str) -> str:
    return str(next(file for family in fonts.CHECK for file in family.files() if file.name == name))


def coloured(ink: Image.Image, fore: tuple[int, int, int], back: tuple[int, int, int]) -> Image.Image:
    """The ink in one colour on another."""
    return Image.composite(Image.new("RGB", ink.size, fore), Image.new("RGB", ink.size, back), ink)


def main() -> None:
    fonts.require(fonts.CHECK)
    FOLDER.mkdir(exist_ok=True)
    rng = np.random.default_rng(SEED)
    mono, serif, sans = face("LiberationMono-Bold.ttf"), face("DejaVuSerif.ttf"), face("FreeSans.ttf")
    pictures: list[tuple[str, str, Image.Image]] = [
        ("7.png", "7", draw.clean(sans, "7")),
        ("A.png", "A", draw.clean(serif, "A")),
        # As a camera would see them.
        ("K.png", "K", draw.augmented(rng, serif, "K")),
        ("R.png", "R", draw.augmented(rng, sans, "R")),
        ("4.png", "4", draw.augmented(rng, mono, "4")),
        ("Z.png", "Z", draw.augmented(rng, mono, "Z")),
        # Colour, larger than the canvas, and compressed with loss.
        ("8.jpg", "8", coloured(draw.coverage(sans, "8", 46), (250, 220, 40), (20, 40, 90)).resize((320, 320), Image.Resampling.BICUBIC)),
        # Narrow: cut to the character, so that the server has to add room at the sides.
        ("E-narrow.png", "E", draw.clean(sans, "E").crop((12, 4, 52, 60))),
    ]
    # Transparent: black ink on nothing.
    ink = draw.coverage(serif, "S", 42)
    glass = Image.new("RGBA", ink.size, (0, 0, 0, 0))
    glass.putalpha(ink)
    pictures.append(("S-transparent.png", "S", glass))

    for file, _, picture in pictures:
        options = {"quality": 85} if file.endswith(".jpg") else {"optimize": True}
        picture.save(FOLDER / file, **options)
    lines = "".join(f"{file} {label}\n" for file, label, _ in pictures)
    (FOLDER / "answers.txt").write_text(f"# FILE LABEL, written by model/pictures.py\n{lines}")
    sys.stdout.write(lines)


if __name__ == "__main__":
    main()
