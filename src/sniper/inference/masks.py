"""From the mask branch's grids to masks of the image, as run lengths: no mask is ever there in full.

A grid covers its box; the mask is where its bilinear interpolation at the middle of an image pixel reaches one half.
``docs/method.md``, "Masks".
"""

import numpy as np
from numpy.typing import NDArray

from sniper.compiled import compiled
from sniper.data.columns import PackedStrings
from sniper.data.run_lengths import RunLengths

INSIDE = 0.5  # probability from which a pixel belongs to the object


def encode_masks(
    probabilities: NDArray[np.float32], boxes_xyxy: NDArray[np.floating], size_wh: tuple[int, int]
) -> RunLengths:
    """The masks of (N, M, M) grids over (N, 4) boxes (original px, inside the image) in an image of ``size_wh``."""
    width, height = size_wh
    boxes = np.ascontiguousarray(boxes_xyxy, np.float64).reshape(-1, 4)
    grids = np.ascontiguousarray(probabilities, np.float32)
    blob, offsets = _encode(grids, boxes, width, height, INSIDE)
    return RunLengths(PackedStrings(blob, offsets), np.tile(np.asarray([[height, width]], np.int32), (len(boxes), 1)))


@compiled
def _encode(
    grids: NDArray[np.float32], boxes: NDArray[np.float64], width: int, height: int, inside: float
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """One string of COCO's compressed run lengths a box."""
    cells = grids.shape[1]
    offsets = np.zeros(len(boxes) + 1, np.int64)
    blob, used = np.empty(4096, np.uint8), 0
    for n in range(len(boxes)):
        x1, y1, x2, y2 = boxes[n]
        # Pixels whose middle is in the box.
        left, right = max(int(np.ceil(x1 - 0.5)), 0), min(int(np.ceil(x2 - 0.5)), width)
        top, bottom = max(int(np.ceil(y1 - 0.5)), 0), min(int(np.ceil(y2 - 0.5)), height)
        column_runs = max(bottom - top, 0) + 3  # as many as a column could have
        runs = np.empty(column_runs + 4096, np.int64)
        count, state, start = 0, False, 0
        for x in range(left, right):
            if count + column_runs > len(runs):
                more_runs = np.empty(2 * len(runs), np.int64)
                more_runs[:count] = runs[:count]
                runs = more_runs
            across = min(max((x + 0.5 - x1) / (x2 - x1) * cells - 0.5, 0.0), cells - 1.0)
            column = min(int(across), cells - 2)
            along = across - column
            for y in range(top, bottom):
                down = min(max((y + 0.5 - y1) / (y2 - y1) * cells - 0.5, 0.0), cells - 1.0)
                row = min(int(down), cells - 2)
                below = down - row
                upper = grids[n, row, column] * (1 - along) + grids[n, row, column + 1] * along
                lower = grids[n, row + 1, column] * (1 - along) + grids[n, row + 1, column + 1] * along
                now = upper * (1 - below) + lower * below >= inside
                if now != state:
                    runs[count] = x * height + y - start
                    start, state, count = x * height + y, now, count + 1
            if state and bottom < height:
                runs[count] = x * height + bottom - start
                start, state, count = x * height + bottom, False, count + 1
            elif state and x + 1 < right and top > 0:
                runs[count] = (x + 1) * height - start
                start, state, count = (x + 1) * height, False, count + 1
        if state:
            runs[count] = right * height - start
            start, state, count = right * height, False, count + 1
        if start < width * height or count == 0:
            runs[count] = width * height - start
            count += 1
        for k in range(count):
            if used + 16 > len(blob):
                more = np.empty(2 * len(blob), np.uint8)
                more[:used] = blob[:used]
                blob = more
            # From the fourth run on, the difference to the run before last; five bits a letter, lowest first.
            value = runs[k] - (runs[k - 2] if k > 2 else 0)
            going = True
            while going:
                letter = value & 31
                value >>= 5
                going = value != (-1 if letter & 16 else 0)
                blob[used] = 48 + (letter | 32 if going else letter)
                used += 1
        offsets[n + 1] = used
    return blob[:used].copy(), offsets
