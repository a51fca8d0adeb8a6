"""Focus chips of 128 x 128 maps against the original's procedure on OpenCV's contours: CPU seconds, one thread.

    python benchmarks/focus_chips.py

The other side is what the original computes, in Python and OpenCV; where its loop stops early the chips differ, which
``equal_chips`` counts. ``cheapest`` is the way that AutoFocus takes by default, for a level of twice the zoom: its
time, and the area of its chips, overlaps counted twice, as a share of the area of the original's. Maps hold blobs of
focus like a picture with scattered small objects.
"""

import argparse
import json
import os
import time
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from sniper.focus.cells import focus_chips
from sniper.focus.cover import LevelCost, covering_chips

STRIDE, DILATION, THRESHOLD = 16, 3, 0.3
ZOOM = 2  # of the level that looks at the chips, beside that of the map


def ours(probability: NDArray[np.float32], min_count: int) -> NDArray[np.float64]:
    side = probability.shape[0] * STRIDE
    return focus_chips(
        probability, (side, side), threshold=THRESHOLD, stride=STRIDE, dilation=DILATION, min_cells=min_count
    ).boxes_xyxy


def cheapest(probability: NDArray[np.float32], min_count: int) -> NDArray[np.float64]:
    side = probability.shape[0] * STRIDE * ZOOM
    level_cost = LevelCost(
        cell_px=STRIDE * ZOOM, margin_px=STRIDE * ZOOM / 2, size_wh=(side, side),
        min_px=min_count * STRIDE * ZOOM, step_px=64, window_px=1536, overlap_px=307,
        whole_pixels=side * side, chip_pixels=128 * 256,
    )  # fmt: skip
    return covering_chips(probability >= THRESHOLD, probability, level_cost, dilation=1).boxes_xyxy / ZOOM


def area(boxes: NDArray[np.float64]) -> float:
    return float((boxes[:, 2:] - boxes[:, :2]).prod(axis=1).sum())


def original(probability: NDArray[np.float32], min_count: int) -> NDArray[np.float64]:
    rows, columns = probability.shape
    marked = cv2.dilate((probability >= THRESHOLD).astype(np.uint8), np.ones((DILATION, DILATION), np.uint8))
    before = -1
    while True:
        for x, y, width, height in _placed(marked, min_count):
            marked[y : y + height, x : x + width] = 1
        rects = _placed(marked, min_count)
        if len(rects) == before:
            break
        before = len(rects)
    boxes = np.asarray([[x, y, min(x + w, columns), min(y + h, rows)] for x, y, w, h in rects], float)
    return boxes.reshape(-1, 4) * STRIDE


def _placed(marked: NDArray[np.uint8], min_count: int) -> list[tuple[int, int, int, int]]:
    rows, columns = marked.shape
    contours, _ = cv2.findContours(marked, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    rects = []
    for contour in contours:
        x, y, width, height = cv2.boundingRect(contour)
        middle_x, middle_y = (2 * x + width) // 2, (2 * y + height) // 2
        width, height = max(width, min_count), max(height, min_count)
        rects.append((_start(middle_x, width, columns), _start(middle_y, height, rows), width, height))
    return rects


def _start(middle: int, size: int, length: int) -> int:
    if middle + size // 2 >= length:
        return max(length - size, 0)
    return max(middle - size // 2, 0)


def scene(random: np.random.Generator, cells: int, objects: int) -> NDArray[np.float32]:
    """Blobs of one to five cells at random places, and a little noise everywhere."""
    probability = random.random((cells, cells), dtype=np.float32) * 0.2
    for _ in range(objects):
        x, y, size = random.integers(0, cells), random.integers(0, cells), random.integers(1, 6)
        probability[y : y + size, x : x + size] = random.uniform(0.3, 1)
    return probability


def seconds(procedure: Callable[..., NDArray], maps: list[NDArray], min_count: int, repetitions: int) -> float:
    """Mean CPU seconds a map, the best of some repetitions."""
    best = np.inf
    for _ in range(repetitions):
        start = time.process_time()
        for one in maps:
            procedure(one, min_count)
        best = min(best, (time.process_time() - start) / len(maps))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=128)
    parser.add_argument("--maps", type=int, default=30)
    parser.add_argument("--repetitions", type=int, default=7)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    random = np.random.default_rng(0)
    report: dict[str, object] = {"cells": args.cells, "maps": args.maps}
    for objects in (3, 30, 300):
        for min_count in (4, 16):
            maps = [scene(random, args.cells, objects) for _ in range(args.maps)]
            ours(maps[0], min_count), cheapest(maps[0], min_count)
            own, cheap, other = (
                seconds(side, maps, min_count, args.repetitions) for side in (ours, cheapest, original)
            )
            both = [(ours(one, min_count), original(one, min_count)) for one in maps]
            report[f"{objects}_objects_least_{min_count}"] = {
                "ours_ms": round(own * 1e3, 3),
                "original_ms": round(other * 1e3, 3),
                "times_faster": round(other / own, 1),
                "chips": round(float(np.mean([len(a) for a, _ in both])), 1),
                "cheapest_ms": round(cheap * 1e3, 3),
                "cheapest_chips": round(float(np.mean([len(cheapest(one, min_count)) for one in maps])), 1),
                "cheapest_pixels": round(
                    sum(area(cheapest(one, min_count)) for one in maps) / sum(area(b) for _, b in both), 3
                ),
                "equal_chips": sum(set(map(tuple, a)) == set(map(tuple, b)) for a, b in both),
            }
    report["load"] = os.getloadavg()[0]
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
