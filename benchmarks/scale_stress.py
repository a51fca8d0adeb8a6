"""Scale stress: synthetic pictures in which object sizes span two orders of magnitude and much is empty.

    python benchmarks/scale_stress.py TRAIN.json TEST.json --out FOLDER

Cut-outs of the instances of a COCO data set with masks are pasted on padded inputs of 2048 to 4096 px, sizes (square
root of the box) log-uniform from 8 to 600 px, in clusters that leave large areas empty. Canvases are covered by
mirrored patches that show no annotated object. Train and test padded inputs take instances and backgrounds from two
different annotation files. All objects are of one class. It is synthetic, and called so wherever its numbers stand.
The same seed gives the same files.
"""

import argparse
import json
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from sniper.data.source import load_dataset
from sniper.data.table import AnnotationTable
from sniper.pixels.decode import read_image

SIDE_PX = (2048, 4096)
SIZE_PX = (8.0, 600.0)
LEAST_CUTOUT_PX = 24  # smaller instances are too blurred to be cut out
MOST_ENLARGED = 2.0
LEAST_PATCH_PX = 96
QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 90]


class Cutout(NamedTuple):
    """One instance: colours, how much of each pixel is the object, and its size."""

    rgb: NDArray[np.uint8]  # (h, w, 3)
    alpha: NDArray[np.float32]  # (h, w) in [0, 1]
    size: float  # square root of the box's area, px


def cutouts(table: AnnotationTable) -> list[Cutout]:
    """Every whole instance with a polygon that is large enough and does not touch the border of its image."""
    assert table.masks is not None
    found = []
    for image in range(len(table)):
        width, height = table.sizes_wh[image].tolist()
        rows = [row for row in range(*table.objects(image).indices(table.num_objects)) if _whole(table, row, image)]
        if not rows:
            continue
        pixels = read_image(table.image_path(image))
        for row in rows:
            mask = np.zeros((height, width), np.uint8)
            rings = [np.round(ring * 16).astype(np.int32) for ring in table.masks.polygons(row)]
            cv2.fillPoly(mask, rings, 255, lineType=cv2.LINE_AA, shift=4)
            columns, lines = (np.flatnonzero(mask.max(axis=axis)) for axis in (0, 1))
            if not len(columns):
                continue
            box = np.s_[lines[0] : lines[-1] + 1, columns[0] : columns[-1] + 1]
            size = float(np.sqrt(mask[box].size))
            if size >= LEAST_CUTOUT_PX:
                found.append(Cutout(pixels[box].copy(), mask[box].astype(np.float32) / 255, size))
    return found


def _whole(table: AnnotationTable, row: int, image: int) -> bool:
    x1, y1, x2, y2 = table.boxes_xyxy[row]
    width, height = table.sizes_wh[image]
    assert table.masks is not None
    inside = x1 > 2 and y1 > 2 and x2 < width - 2 and y2 < height - 2
    return bool(inside and not table.flags[row] and table.masks.polygons(row))


def patches(table: AnnotationTable) -> list[NDArray[np.uint8]]:
    """The largest square without any object of every image that has one."""
    found = []
    for image in range(len(table)):
        width, height = table.sizes_wh[image].tolist()
        taken = np.zeros((height, width), np.int32)
        for x1, y1, x2, y2 in table.boxes_xyxy[table.objects(image)]:
            taken[int(y1) : int(np.ceil(y2)), int(x1) : int(np.ceil(x2))] = 1
        free = cv2.distanceTransform(
            np.pad(1 - taken, 1).astype(np.uint8), cv2.DIST_C, 3
        )  # chessboard distance: half the side of the largest free square around each pixel
        reach = int(free.max()) - 1
        if 2 * reach < LEAST_PATCH_PX:
            continue
        y, x = np.unravel_index(int(free.argmax()), free.shape)
        pixels = read_image(table.image_path(image))
        found.append(pixels[max(y - reach, 0) : y + reach, max(x - reach, 0) : x + reach].copy())
    return found


def background(rng: np.random.Generator, sources: list[NDArray[np.uint8]], size_wh: tuple[int, int]) -> NDArray:
    """A padded input covered by one patch, enlarged and mirrored over and over."""
    patch = sources[rng.integers(len(sources))]
    zoom = rng.uniform(1.0, MOST_ENLARGED)
    patch = cv2.resize(patch, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_LINEAR)
    columns, lines = (_mirrored(length, side) for length, side in zip(size_wh, patch.shape[1::-1], strict=True))
    return patch[lines[:, None], columns]


def _mirrored(length: int, side: int) -> NDArray[np.int64]:
    place = np.arange(length) % (2 * side)
    return np.minimum(place, 2 * side - 1 - place)


def padded(
    rng: np.random.Generator, instances: list[Cutout], sources: list[NDArray[np.uint8]], objects: int
) -> tuple[NDArray[np.uint8], list[list[float]]]:
    """One picture and the xywh boxes of what was pasted."""
    width, height = (int(n) for n in rng.integers(SIDE_PX[0], SIDE_PX[1] + 1, 2))
    picture = background(rng, sources, (width, height)).copy()
    clusters = rng.uniform(0.1, 0.9, (int(rng.integers(2, 5)), 2)) * (width, height)
    spread = 0.08 * min(width, height)
    placed = np.zeros((0, 4))
    sizes = np.array([one.size for one in instances])
    # Large ones first, so that small ones are not hidden.
    for wanted in sorted(np.exp(rng.uniform(*np.log(SIZE_PX), objects)), reverse=True):
        usable = np.flatnonzero(sizes * MOST_ENLARGED >= wanted)
        if not len(usable):
            continue
        one = instances[usable[rng.integers(len(usable))]]
        zoom = wanted / one.size
        w, h = (max(2, round(n * zoom)) for n in one.alpha.shape[::-1])
        for _ in range(20):
            centre = clusters[rng.integers(len(clusters))] + rng.normal(0, spread + wanted / 2, 2)
            x, y = (int(c - n / 2) for c, n in zip(centre, (w, h), strict=True))
            box = np.array([x, y, x + w, y + h], float)
            if x >= 0 and y >= 0 and x + w <= width and y + h <= height and not _hides(box, placed):
                _paste(picture, one, (x, y), (w, h), flip=bool(rng.integers(2)))
                placed = np.vstack((placed, box))
                break
    boxes = np.column_stack((placed[:, :2], placed[:, 2:] - placed[:, :2])).tolist() if len(placed) else []
    return picture, boxes


def _hides(box: NDArray, placed: NDArray) -> bool:
    """Whether a fifth of the smaller one of two boxes would be shared."""
    low, high = np.maximum(box[:2], placed[:, :2]), np.minimum(box[2:], placed[:, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=1)
    own, others = (box[2:] - box[:2]).prod(), (placed[:, 2:] - placed[:, :2]).prod(axis=1)
    return bool((shared > 0.2 * np.minimum(own, others)).any())


def _paste(picture: NDArray, one: Cutout, place: tuple[int, int], size_wh: tuple[int, int], *, flip: bool) -> None:
    kind = cv2.INTER_AREA if size_wh[0] < one.alpha.shape[1] else cv2.INTER_LINEAR
    rgb, alpha = (cv2.resize(part, size_wh, interpolation=kind) for part in (one.rgb, one.alpha))
    if flip:
        rgb, alpha = rgb[:, ::-1], alpha[:, ::-1]
    below = picture[place[1] : place[1] + size_wh[1], place[0] : place[0] + size_wh[0]]
    below[:] = np.round(below + alpha[..., None] * (rgb.astype(np.float32) - below)).astype(np.uint8)


def write_part(name: str, table: AnnotationTable, out: Path, count: int, objects: int, seed: int) -> dict[str, float]:
    """The padded inputs of one part and ``<name>.json``."""
    instances, sources = cutouts(table), patches(table)
    (out / name).mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for number in range(count):
        picture, boxes = padded(np.random.default_rng((seed, number)), instances, sources, objects)
        file = f"{name}/{number:04d}.jpg"
        (out / file).write_bytes(cv2.imencode(".jpg", picture[..., ::-1], QUALITY)[1].tobytes())
        images.append({"id": number + 1, "file_name": file, "width": picture.shape[1], "height": picture.shape[0]})
        for box in boxes:
            facts = {"id": len(annotations) + 1, "image_id": number + 1, "category_id": 1, "iscrowd": 0}
            annotations.append(facts | {"bbox": box, "area": box[2] * box[3]})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "object"}]}
    (out / f"{name}.json").write_text(json.dumps(content))
    sizes = np.sqrt([one["area"] for one in annotations])
    covered = sum(one["area"] for one in annotations) / sum(image["width"] * image["height"] for image in images)
    return {
        "canvases": count,
        "objects": len(annotations),
        "instances": len(instances),
        "patches": len(sources),
        "size_px_median": float(np.median(sizes)),
        "area_covered_by_boxes": covered,
    }


def main() -> None:
    """Write both parts; print what they hold as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path, help="COCO JSON with polygons, for the training canvases")
    parser.add_argument("test", type=Path, help="another one, for the test canvases")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--canvases", type=int, nargs=2, default=(60, 20), metavar=("TRAIN", "TEST"))
    parser.add_argument("--objects", type=int, default=40, help="objects a canvas, at most")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    test = load_dataset(args.test)
    train = load_dataset(args.train)
    train = train.select(np.flatnonzero(~np.isin(train.image_ids, test.image_ids)))  # no instance is in both parts
    parts = (("train", train, args.canvases[0], args.seed), ("test", test, args.canvases[1], args.seed + 1))
    report = {name: write_part(name, table, args.out, n, args.objects, seed) for name, table, n, seed in parts}
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
