"""Objects made unrecognisable, faces above all: a few cells of mean colour, under a soft ellipse around each box."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sniper.compiled import compiled
from sniper.report.draw import reaching
from sniper.report.layout import check
from sniper.report.palette import Pixels

GROWTH = 1.5  # the ellipse's axes, in sides of the box: hair, ears and chin are outside most boxes of faces
SOLID = 0.8  # share of the ellipse's radius inside which nothing of the original remains
CELLS = 5  # along the longer axis: what is left of a face of any size is 25 colours
MIN_CELL_PX = 4.0  # small faces have fewer cells


def blur_detections(
    pixels: Pixels,
    boxes_xyxy: NDArray[np.floating],
    scores: NDArray[np.floating],
    labels: NDArray[np.integer],
    *,
    min_score: float | Sequence[float] = 0.3,
    scale: float = 1.0,
) -> Pixels:
    """A copy of (H, W, 3) uint8 RGB pixels in which detections of at least ``min_score`` cannot be recognised.

    Every such box counts, also a second one of an object: each hides a little more. Boxes are (N, 4) half-open xyxy in
    px of the image, of which ``pixels`` may be a copy that is ``scale`` times as large; scores (N,) and labels (N,).
    """
    check(pixels)
    picture = np.ascontiguousarray(pixels).copy()
    boxes = np.asarray(boxes_xyxy, dtype=np.float64).reshape(-1, 4) * scale
    scores, labels = np.asarray(scores, dtype=np.float64).reshape(-1), np.asarray(labels, dtype=np.int64).reshape(-1)
    _blur(picture, boxes[reaching(scores, labels, min_score)])
    return picture


@compiled
def _blur(picture: NDArray[np.uint8], boxes: NDArray[np.float64]) -> None:
    """In place. Colours between the middles of cells are interpolated, so that no edge of a cell is left."""
    height, width = picture.shape[:2]
    colours = np.empty((CELLS, CELLS, 3), np.float64)
    counts = np.empty((CELLS, CELLS), np.float64)
    for i in range(len(boxes)):
        middle_x, middle_y = (boxes[i, 0] + boxes[i, 2]) / 2, (boxes[i, 1] + boxes[i, 3]) / 2
        radius_x = max((boxes[i, 2] - boxes[i, 0]) / 2, 1.0) * GROWTH
        radius_y = max((boxes[i, 3] - boxes[i, 1]) / 2, 1.0) * GROWTH
        cell = max(2 * max(radius_x, radius_y) / CELLS, MIN_CELL_PX)
        columns = min(max(int(np.round(2 * radius_x / cell)), 1), CELLS)
        rows = min(max(int(np.round(2 * radius_y / cell)), 1), CELLS)
        left, top = middle_x - radius_x, middle_y - radius_y
        cell_w, cell_h = 2 * radius_x / columns, 2 * radius_y / rows
        x1, x2 = max(int(np.floor(left)), 0), min(int(np.ceil(middle_x + radius_x)), width)
        y1, y2 = max(int(np.floor(top)), 0), min(int(np.ceil(middle_y + radius_y)), height)
        colours[:], counts[:] = 0, 0
        for y in range(y1, y2):
            row = min(max(int((y + 0.5 - top) / cell_h), 0), rows - 1)
            for x in range(x1, x2):
                column = min(max(int((x + 0.5 - left) / cell_w), 0), columns - 1)
                counts[row, column] += 1
                for k in range(3):
                    colours[row, column, k] += picture[y, x, k]
        # Cells outside the picture take the colour of the nearest one inside.
        first_row = min(max(int((y1 + 0.5 - top) / cell_h), 0), rows - 1)
        last_row = min(max(int((y2 - 0.5 - top) / cell_h), 0), rows - 1)
        first_column = min(max(int((x1 + 0.5 - left) / cell_w), 0), columns - 1)
        last_column = min(max(int((x2 - 0.5 - left) / cell_w), 0), columns - 1)
        for row in range(rows):
            for column in range(columns):
                for k in range(3):
                    colours[row, column, k] /= max(counts[row, column], 1.0)
        for y in range(y1, y2):
            at_row = min(max((y + 0.5 - top) / cell_h - 0.5, float(first_row)), float(last_row))
            row, next_row = int(at_row), min(int(at_row) + 1, last_row)
            down = at_row - row
            for x in range(x1, x2):
                away = np.sqrt(((x + 0.5 - middle_x) / radius_x) ** 2 + ((y + 0.5 - middle_y) / radius_y) ** 2)
                hidden = min(max((1 - away) / (1 - SOLID), 0.0), 1.0)
                if hidden <= 0:
                    continue
                at_column = min(max((x + 0.5 - left) / cell_w - 0.5, float(first_column)), float(last_column))
                column, next_column = int(at_column), min(int(at_column) + 1, last_column)
                right = at_column - column
                for k in range(3):
                    upper = (1 - right) * colours[row, column, k] + right * colours[row, next_column, k]
                    lower = (1 - right) * colours[next_row, column, k] + right * colours[next_row, next_column, k]
                    colour = (1 - down) * upper + down * lower
                    picture[y, x, k] = np.uint8(np.round(hidden * colour + (1 - hidden) * picture[y, x, k]))
