"""Photos of coloured things on noise, by folder: classes that a child could tell apart."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from sniper.pipeline.from_callable import from_callable
from sniper.pipeline.model import Model

SIZE = 128, 96
SHAPES = ("ball", "rod", "ring")


def draw_thing(pixels: np.ndarray, name: str, x: int, y: int) -> tuple[int, int, int, int]:
    """Draw one thing with its middle at a place; its box, xyxy."""
    if name == "ball":
        cv2.circle(pixels, (x, y), 10, (250, 40, 30), -1)
    elif name == "rod":
        cv2.rectangle(pixels, (x - 16, y - 4), (x + 15, y + 3), (30, 60, 250), -1)
        return x - 16, y - 4, x + 16, y + 4
    elif name == "ring":
        cv2.circle(pixels, (x, y), 11, (20, 230, 40), 4)
        return x - 13, y - 13, x + 14, y + 14
    else:
        cv2.rectangle(pixels, (x - 9, y - 9), (x + 8, y + 8), (250, 250, 20), -1)
        return x - 9, y - 9, x + 9, y + 9
    return x - 10, y - 10, x + 11, y + 11


def make_photo(path: Path, name: str | None, seed: int, *, distractor: bool = True) -> tuple[int, int, int, int]:
    """Write one photo of a thing, and a yellow square somewhere else; the box of the thing."""
    random = np.random.default_rng(seed)
    pixels = random.integers(110, 140, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
    box = (0, 0, 0, 0)
    if name is not None:
        box = draw_thing(pixels, name, int(random.integers(20, 50)), int(random.integers(20, 76)))
    if distractor:
        draw_thing(pixels, "square", int(random.integers(86, 110)), int(random.integers(20, 76)))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return box


def make_folder(folder: Path, photos: int = 6, names: tuple[str, ...] = SHAPES) -> dict[str, tuple[int, int, int, int]]:
    """One subfolder a class; boxes of the things by ``folder/file``."""
    return {
        f"{name}/{number}.png": make_photo(folder / name / f"{number}.png", name, 100 * place + number)
        for place, name in enumerate(names)
        for number in range(photos)
    }


def colourful_things() -> Model:
    """A detector that knows what stands out from grey, and not what it is."""

    def find(images: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        found = []
        for pixels in images:
            mask = (np.ptp(pixels.astype(int), axis=2) > 60).astype(np.uint8)
            _, _, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
            x, y, width, height, area = stats[1:].T
            boxes = np.stack([x, y, x + width, y + height], axis=1)[area > 30]
            found.append((boxes, np.full(len(boxes), 0.8), np.zeros(len(boxes), int)))
        return found

    return from_callable(find, ["object"])
