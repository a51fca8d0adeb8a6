"""Photos made of things cut from other photos, and of drawn shapes, on plain ground: what an objectness detector lacks.

COCO shows things in rooms and streets. A detector trained on it alone takes a screw on concrete for ground: of fod_a's
pens and screws it found one in ten. These pictures have neither its things nor its grounds.
"""

from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO

SIDES = (300, 480)  # px of a picture
SIZES = (12, 240)  # px of the longer side of a thing
MAX_THINGS = 3


class Thing(NamedTuple):
    """Something to lay on the ground."""

    pixels: NDArray[np.uint8]  # (h, w, 3)
    mask: NDArray[np.float32]  # (h, w) in [0, 1]


def things_of(
    annotations: Path, images: Path, left_out: tuple[str, ...], count: int, random: np.random.Generator
) -> list[Thing]:
    """Objects of COCO with their masks, of the classes that are not left out."""
    coco = COCO(str(annotations))
    names = {one["id"]: one["name"] for one in coco.loadCats(coco.getCatIds())}
    usable = [
        one for one in coco.loadAnns(coco.getAnnIds(iscrowd=False))
        if one["area"] > 48**2 and names[one["category_id"]] not in left_out
    ]  # fmt: skip
    found = []
    for k in random.permutation(len(usable))[:count]:
        one = usable[k]
        pixels = cv2.imread(str(images / coco.loadImgs(one["image_id"])[0]["file_name"]))[:, :, ::-1]
        x, y, width, height = (int(value) for value in one["bbox"])
        part = slice(y, y + height + 1), slice(x, x + width + 1)
        found.append(Thing(np.ascontiguousarray(pixels[part]), coco.annToMask(one)[part].astype(np.float32)))
    return found


def drawn_thing(random: np.random.Generator) -> Thing:
    """A rod, a ring, a disc or a polygon with light from one side."""
    side = 160
    mask = np.zeros((side, side), np.uint8)
    middle, kind = (side // 2, side // 2), random.choice(4, p=[0.4, 0.2, 0.2, 0.2])
    if kind == 0:
        thick = int(random.integers(6, 26))
        cv2.line(mask, (14, side // 2), (side - 14, side // 2), 255, thick)
        if random.random() < 0.5:
            cv2.circle(mask, (side - 20, side // 2), thick, 255, -1)
    elif kind == 1:
        outer = int(random.integers(45, 75))
        cv2.circle(mask, middle, outer, 255, -1)
        cv2.circle(mask, middle, int(outer * random.uniform(0.25, 0.7)), 0, -1)
    elif kind == 2:
        cv2.ellipse(mask, middle, (int(random.integers(40, 75)), int(random.integers(20, 75))), 0, 0, 360, 255, -1)
    else:
        angles = np.sort(random.uniform(0, 2 * np.pi, random.integers(3, 9)))
        reach = random.uniform(30, 75, len(angles))
        corners = np.stack([np.cos(angles), np.sin(angles)], axis=1) * reach[:, None] + side / 2
        cv2.fillPoly(mask, [corners.astype(np.int32)], 255)
    light = np.add.outer(np.linspace(-1, 1, side), np.linspace(-1, 1, side) * random.uniform(-1, 1))
    colour = random.integers(0, 256, 3) if random.random() < 0.6 else np.full(3, random.integers(0, 256))
    shade = colour + light[..., None] * random.uniform(10, 70) + random.normal(0, 4, (side, side, 3))
    return Thing(shade.clip(0, 255).astype(np.uint8), mask.astype(np.float32) / 255)


def ground(random: np.random.Generator, width: int, height: int) -> NDArray[np.float32]:
    """(h, w, 3) stains of several sizes and grain on one colour."""
    grey = random.uniform(50, 220)
    picture = np.full((height, width, 3), grey, np.float32) + random.normal(0, 9, 3).astype(np.float32)
    for cells in (2, 5, 12, 40):
        noise = random.normal(0, random.uniform(1, 9), (cells, cells)).astype(np.float32)
        picture += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)[..., None]
    grain = random.normal(0, random.uniform(1, 22), (height, width)).astype(np.float32)
    picture += cv2.GaussianBlur(grain, (0, 0), random.uniform(0.4, 1.6))[..., None]
    if random.random() < 0.3:  # a joint or a crack
        ends = random.integers(0, (width, height), (2, 2))
        cv2.line(picture, ends[0].tolist(), ends[1].tolist(), [float(grey - 40)] * 3, int(random.integers(1, 4)))
    return picture


def lay(picture: NDArray[np.float32], thing: Thing, random: np.random.Generator) -> list[float] | None:
    """Lay a thing somewhere on the picture, turned and with a shadow; its box (x, y, w, h), if all of it is there."""
    height, width = picture.shape[:2]
    size = np.exp(random.uniform(*np.log(SIZES)))
    scale, angle = size / max(thing.mask.shape), random.uniform(0, 360)
    reach = 0.5 * size * 1.2
    if 2 * reach + 4 > min(height, width):
        return None
    x, y = random.uniform(reach + 2, width - reach - 2), random.uniform(reach + 2, height - reach - 2)
    turn = cv2.getRotationMatrix2D((thing.mask.shape[1] / 2, thing.mask.shape[0] / 2), angle, scale)
    turn[:, 2] += [x - thing.mask.shape[1] / 2, y - thing.mask.shape[0] / 2]
    smooth = cv2.GaussianBlur(thing.pixels, (0, 0), max(0.3, 0.4 / scale)) if scale < 1 else thing.pixels
    mask = cv2.warpAffine(cv2.GaussianBlur(thing.mask, (0, 0), max(0.6, 0.4 / scale)), turn, (width, height))
    colour = cv2.warpAffine(smooth, turn, (width, height), borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
    shadow = np.roll(cv2.GaussianBlur(mask, (0, 0), 1 + 0.04 * size), (int(0.04 * size) + 1, int(0.03 * size)), (0, 1))
    picture *= 1 - random.uniform(0, 0.5) * shadow[..., None]
    picture += mask[..., None] * (colour - picture)
    rows, columns = np.flatnonzero((mask > 0.4).any(axis=1)), np.flatnonzero((mask > 0.4).any(axis=0))
    if len(rows) < 3 or len(columns) < 3:
        return None
    return [float(columns[0]), float(rows[0]), float(np.ptp(columns) + 1), float(np.ptp(rows) + 1)]


def write_pictures(folder: Path, things: list[Thing], count: int, random: np.random.Generator) -> list[dict[str, Any]]:
    """So many pictures as JPEG; file name, size and boxes of each."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for number in range(count):
        width, height = random.integers(SIDES[0], SIDES[1] + 1, 2).tolist()
        picture = ground(random, width, height)
        wanted = int(random.integers(1, MAX_THINGS + 1))
        chosen = [
            drawn_thing(random) if random.random() < 0.4 else things[random.integers(len(things))]
            for _ in range(wanted)
        ]
        boxes = [box for box in (lay(picture, one, random) for one in chosen) if box is not None]
        file = folder / f"{number:05d}.jpg"
        pixels = picture.clip(0, 255).astype(np.uint8)[:, :, ::-1]
        cv2.imwrite(str(file), pixels, [cv2.IMWRITE_JPEG_QUALITY, int(random.integers(60, 96))])
        written.append({"file": file, "size": (width, height), "boxes": boxes})
    return written
