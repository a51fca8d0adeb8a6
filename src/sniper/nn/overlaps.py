"""Pairwise overlaps of padded boxes, over the whole batch at once.

Boxes are half-open ``xyxy``. Objects are ``(B, N, 4)``; the boxes they are compared with are ``(B, A, 4)``, or
``(1, A, 4)`` where all images share them. Results are ``(B, N, A)``: the long axis comes last, which is what makes
these loops fast on a CPU.
"""

from torch import Tensor


def area(boxes: Tensor) -> Tensor:
    """(...,) areas of (..., 4) boxes in square px; inverted boxes count as empty."""
    size = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0)
    return size[..., 0] * size[..., 1]


def intersection(objects: Tensor, boxes: Tensor) -> Tensor:
    """(B, N, A) areas shared by (B, N, 4) objects and (B or 1, A, 4) boxes, square px."""
    x1, y1, x2, y2 = objects.unsqueeze(2).unbind(-1)
    bx1, by1, bx2, by2 = (side.contiguous().unsqueeze(1) for side in boxes.unbind(-1))
    width = x2.minimum(bx2).sub_(x1.maximum(bx1)).clamp_(min=0)
    height = y2.minimum(by2).sub_(y1.maximum(by1)).clamp_(min=0)
    return width.mul_(height)


def iou(objects: Tensor, boxes: Tensor, shared: Tensor | None = None) -> Tensor:
    """(B, N, A) intersection over union; 0 where nothing is shared. ``shared`` saves computing it twice."""
    if shared is None:
        shared = intersection(objects, boxes)
    union = (area(objects).unsqueeze(2) + area(boxes).unsqueeze(1)).sub_(shared)
    return shared / union.clamp_(min=1e-9)
