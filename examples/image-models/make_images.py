"""Makes a folder of 2,527 pictures in six classes, for those who have no image set at hand.

    python make_images.py DIR

The classes are as large as those of the garbage set that the article on mlflow-emissions-sdk used, but the pictures are
patterns: two colours in one of six textures under noise. A class prefers some colours, and its neighbours share them, so
that colour alone is not enough. The same pictures come out every time.
"""

import colorsys
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

SIZE = 128


def turned(rng):
    """Coordinates of all pixels from -1 to 1, turned by any angle."""
    y, x = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
    angle = rng.uniform(0, np.pi)
    return x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)


def stripes(rng):
    x, _ = turned(rng)
    return np.sin(x * rng.uniform(8, 24) + rng.uniform(0, 6)) > 0


def checks(rng):
    x, y = turned(rng)
    tiles = rng.uniform(6, 16)
    return np.sin(x * tiles) * np.sin(y * tiles) > 0


def rings(rng):
    x, y = turned(rng)
    radius = np.hypot(x - rng.uniform(-0.7, 0.7), y - rng.uniform(-0.7, 0.7))
    return np.sin(radius * rng.uniform(12, 28)) > 0


def dots(rng):
    x, y = turned(rng)
    centres = rng.uniform(-1.2, 1.2, (rng.integers(15, 40), 2))
    radii = rng.uniform(0.06, 0.16, len(centres))
    return np.any([np.hypot(x - cx, y - cy) < r for (cx, cy), r in zip(centres, radii)], axis=0)


def grids(rng):
    x, y = turned(rng)
    lines = rng.uniform(10, 20)
    return (np.sin(x * lines) > 0.8) | (np.sin(y * lines) > 0.8)


def clouds(rng):
    noise = Image.fromarray(rng.integers(0, 256, (SIZE, SIZE), dtype=np.uint8))
    soft = np.asarray(noise.filter(ImageFilter.GaussianBlur(rng.uniform(3, 7))), float)
    return soft > np.median(soft)


# As many as the garbage set has of cardboard, glass, metal, paper, plastic and trash.
CLASSES = {stripes: 403, checks: 501, rings: 410, dots: 594, grids: 482, clouds: 137}


def picture(rng, pattern, hue):
    """One picture of a class that prefers a hue (0 to 1)."""
    colour = [np.array(colorsys.hsv_to_rgb(rng.normal(hue, 0.1) % 1, rng.uniform(0.3, 0.9), value)) for value in rng.uniform([0.55, 0.1], [1, 0.5])]
    rng.shuffle(colour)
    image = np.where(pattern(rng)[..., None], *colour)
    image = image + rng.normal(0, rng.uniform(0.05, 0.2), image.shape)
    return Image.fromarray((image.clip(0, 1) * 255).astype(np.uint8))


def make(folder):
    """Makes the folder, whole or not at all; the classes are its subfolders."""
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="images-") as unfinished:
        for number, (pattern, count) in enumerate(CLASSES.items()):
            inside = Path(unfinished, "images", pattern.__name__)
            inside.mkdir(parents=True)
            for i in range(count):
                rng = np.random.default_rng([number, i])
                picture(rng, pattern, number / len(CLASSES)).save(inside / f"{i:03}.jpg", quality=90)
        os.rename(Path(unfinished, "images"), folder)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: make_images.py DIR")
    make(sys.argv[1])
