"""Detections on a photo."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sniper.boxes import area
from sniper.data.run_lengths import RunLengths
from sniper.evaluation.best_f1 import DEFAULT_SCORE
from sniper.inference.distinct import distinct
from sniper.report.layout import check
from sniper.report.marks import (
    Words,
    draw_boxes,
    plate_size,
    plated,
    text_px_for,
    text_width,
    thickness_for,
    write,
)
from sniper.report.masks import draw_masks
from sniper.report.palette import Pixels, class_color

MAX_TAGS = 60  # more than that cover each other and the image
MAX_LEGEND_ROWS = 12


def draw_detections(
    pixels: Pixels,
    boxes_xyxy: NDArray[np.floating],
    scores: NDArray[np.floating],
    labels: NDArray[np.integer],
    class_names: tuple[str, ...],
    *,
    min_score: float | Sequence[float] = 0.3,
    tags: bool = True,
    counts: bool = True,
    masks: RunLengths | None = None,
    scale: float = 1.0,
) -> Pixels:
    """A copy of (H, W, 3) uint8 RGB pixels with the detections of at least ``min_score``, one an object, same size.

    ``min_score`` is one for all, or one a class. Boxes are (N, 4) half-open xyxy in px of the image, of which
    ``pixels`` may be a copy that is ``scale`` times as large; scores (N,) and labels (N,) class indices. A tag with
    class and score stands at each box where there is room: never on another tag, a small object, or a tiny box. When
    some boxes go without, a corner says which colour is which class and how many there are (``counts``). ``masks`` (N)
    are laid over the image in the class's colour, the best on top.
    """
    check(pixels)
    picture = np.ascontiguousarray(pixels).copy()
    boxes = np.asarray(boxes_xyxy, dtype=np.float64).reshape(-1, 4) * scale
    scores, labels = np.asarray(scores, dtype=np.float64).reshape(-1), np.asarray(labels, dtype=np.int64).reshape(-1)
    height, width = picture.shape[:2]
    kept = drawn_rows(boxes, scores, labels, min_score)
    boxes = np.clip(boxes, 0, [width, height, width, height])
    kept = kept[area(boxes[kept]) > 0]
    boxes, scores, labels = boxes[kept], scores[kept], labels[kept]
    if not len(boxes):
        return picture
    line = line_width(boxes, height, width)
    if masks is not None:
        colors = [class_color(int(label)) for label in labels[::-1]]
        draw_masks(picture, masks.take(kept[::-1]), boxes[::-1], colors, scale=scale)
    for label in np.unique(labels)[::-1]:
        draw_boxes(picture, boxes[labels == label], class_color(int(label)), thickness=line)
    px = text_px_for(height, width)
    names = [_name(class_names, int(label)) for label in labels[:MAX_TAGS]]
    texts = [f"{name} {score:.2f}" for name, score in zip(names, scores, strict=False)]
    placed = _place_tags(boxes, texts, px, height, width) if tags and len(boxes) <= MAX_TAGS else {}
    lines = [plated(x, y, texts[i], px, class_color(int(labels[i]))) for i, (x, y) in placed.items()]
    write(picture, lines)
    if counts and len(placed) < len(boxes):
        _count_panel(picture, boxes, labels, class_names, px)
    return picture


def drawn_rows(
    boxes_xyxy: NDArray[np.floating],
    scores: NDArray[np.floating],
    labels: NDArray[np.integer],
    min_score: float | Sequence[float],
) -> NDArray[np.int64]:
    """Rows of the detections of an image that a picture shows, best first: one an object, of at least ``min_score``.

    ``min_score`` as ``reaching`` takes it.
    """
    rows = reaching(scores, labels, min_score)
    rows = rows[np.argsort(-scores[rows], kind="stable")]
    return rows[distinct(np.asarray([0, len(rows)]), boxes_xyxy[rows], scores[rows], labels[rows])]


def reaching(
    scores: NDArray[np.floating], labels: NDArray[np.integer], min_score: float | Sequence[float]
) -> NDArray[np.int64]:
    """Rows of the detections of at least ``min_score``: one for all, or (C,) one a class; a label without a class has
    ``DEFAULT_SCORE``.
    """
    least = np.full(len(scores), min_score) if isinstance(min_score, int | float) else _of_class(min_score, labels)
    return np.flatnonzero(scores >= least)


def _of_class(min_scores: Sequence[float], labels: NDArray[np.integer]) -> NDArray[np.float64]:
    known = (labels >= 0) & (labels < len(min_scores))
    table = np.asarray([*min_scores, DEFAULT_SCORE])
    return np.asarray(table[np.where(known, labels, -1)])


def _name(class_names: tuple[str, ...], label: int) -> str:
    return class_names[label] if 0 <= label < len(class_names) else f"class {label}"


def line_width(boxes: NDArray[np.float64], height: int, width: int) -> int:
    """Thick enough for the image, thin enough for the objects."""
    return int(np.clip(round(float(np.median(np.sqrt(area(boxes)))) / 12), 1, thickness_for(height, width)))


def _overlaps(box: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) intersections of one box with others, square px."""
    low = np.maximum(box[:2], others[:, :2])
    size = np.maximum(np.minimum(box[2:], others[:, 2:]) - low, 0)
    return np.asarray(size[:, 0] * size[:, 1])


def _place_tags(
    boxes: NDArray[np.float64], texts: list[str], px: int, height: int, width: int
) -> dict[int, tuple[int, int]]:
    """Top-left corners of the tags that find room, best scores first. At most ``MAX_TAGS`` boxes."""
    placed: dict[int, tuple[int, int]] = {}
    taken = np.empty((0, 4))
    areas = area(boxes)
    for i, (box, text) in enumerate(zip(boxes, texts, strict=True)):
        w, h = plate_size(text, px)
        if min(box[2] - box[0], box[3] - box[1]) < 1.3 * h or w > 2.2 * (box[2] - box[0]) or w > width:
            continue
        small = (areas < 5 * w * h) & (np.arange(len(boxes)) != i)
        x = float(np.clip(np.floor(box[0]), 0, width - w))
        for y in (np.floor(box[1]) - h, np.ceil(box[3]), np.floor(box[1])):
            spot = np.asarray([x, y, x + w, y + h])
            inside_own = y == np.floor(box[1])
            if y < 0 or y + h > height or (inside_own and areas[i] < 8 * w * h):
                continue
            hidden = _overlaps(spot, boxes[small]) / areas[small]
            if (_overlaps(spot, taken) > 0).any() or (hidden > 0.2).any():
                continue
            placed[i] = (int(x), int(y))
            taken = np.concatenate([taken, spot[None]])
            break
    return placed


def _count_panel(
    picture: Pixels, boxes: NDArray[np.float64], labels: NDArray[np.int64], class_names: tuple[str, ...], px: int
) -> None:
    """Colour, class and number of boxes, in the corner where it hides the fewest of them."""
    present, number = np.unique(labels, return_counts=True)
    order = np.argsort(-number, kind="stable")[:MAX_LEGEND_ROWS]
    rows = [(class_color(int(present[i])), f"{_name(class_names, int(present[i]))}  {number[i]:,}") for i in order]
    more = len(present) - len(order)
    pad, row_h = round(px * 0.6), round(px * 1.5)
    panel_w = max(text_width(text, px) for _, text in rows) + 3 * pad + px
    panel_h = row_h * (len(rows) + (more > 0)) + 2 * pad - (row_h - px)
    height, width = picture.shape[:2]
    if panel_w > 0.6 * width or panel_h > 0.6 * height:
        return
    corners = [(x, y) for y in (pad, height - panel_h - pad) for x in (pad, width - panel_w - pad)]
    spots = np.asarray([[x, y, x + panel_w, y + panel_h] for x, y in corners], dtype=np.float64)
    hidden = [(_overlaps(spot, boxes) / area(boxes)).sum() for spot in spots]
    x, y = corners[int(np.argmin(hidden))]
    ground = picture[y : y + panel_h, x : x + panel_w]
    ground[:] = (ground * 0.22).astype(np.uint8)
    words = []
    for i, (color, text) in enumerate(rows):
        top = y + pad + i * row_h
        picture[top : top + px, x + pad : x + pad + px] = color
        words.append(Words(x + 2 * pad + px, top, text, px, (255, 255, 255)))
    if more > 0:
        top = y + pad + len(rows) * row_h
        words.append(Words(x + 2 * pad + px, top, f"{more} more classes", px, (200, 200, 200)))
    write(picture, words)
