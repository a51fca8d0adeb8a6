"""What is neither an object nor background: anchors, regions, points and queries on ignored objects and in crowds.

SNIP (arXiv 1711.08189, section 5); ``docs/method.md``, "Ignored objects". Every family of detectors asks one of these
functions which of its candidates must not train as background. Boxes are half-open xyxy in network px, ``state`` (B, N)
is an ``ObjectState`` each; overlaps are (B, N, A) as in ``nn.overlaps``. Nothing here learns or draws anything.
"""

import torch
from torch import Tensor

from sniper.nn import overlaps
from sniper.structures import ObjectState


def ignored_anchors(
    iou: Tensor, shared: Tensor, visible: Tensor, state: Tensor, *, ignore_iou: float, crowd_share: float
) -> Tensor:
    """(B, A) bool: anchors on an ignored object or in a crowd region. They do not train, even if positive.

    An anchor is a fixed place, so what it overlaps better does not matter: what the network says there is not judged.

    Args:
        iou: (B, N, A) of objects and anchors.
        shared: (B, N, A) areas that they share, square px.
        visible: (B, A) areas of the anchors over the valid region, square px.
        state: (B, N) of the objects.
        ignore_iou: IoU with an ignored object above which an anchor is neither.
        crowd_share: share of its visible area inside one crowd region above which it is neither.
    """
    on_ignored = (iou > ignore_iou) & (state == ObjectState.IGNORED).unsqueeze(-1)
    return (on_ignored | _in_crowd(shared, visible, state, crowd_share)).any(dim=1)


def ignored_regions(
    iou: Tensor,
    shared: Tensor,
    areas: Tensor,
    state: Tensor,
    *,
    best_learned: Tensor,
    positive: Tensor,
    ignore_iou: float,
    crowd_share: float,
) -> Tensor:
    """(B, R) bool: proposed regions that show an ignored object rather than a learned one, or a part of a crowd.

    A region was put where something is, so the object that it overlaps best decides what it shows.

    Args:
        iou: (B, N, R) of objects and regions, N at least 1.
        shared: (B, N, R) areas that they share, square px.
        areas: (B, R) of the regions, square px.
        state: (B, N) of the objects.
        best_learned: (B, R) largest IoU with an object that is learned, below 0 without any.
        positive: (B, R) regions that learn an object; crowd regions do not take it from them.
        ignore_iou: IoU with an ignored object above which a region that overlaps no learned one better is neither.
        crowd_share: share of its area inside one crowd region above which a region is not background.
    """
    on_ignored = iou.masked_fill((state != ObjectState.IGNORED).unsqueeze(-1), 0).amax(dim=1)
    in_crowd = _in_crowd(shared, areas, state, crowd_share).any(dim=1)
    return ((on_ignored > ignore_iou) & (on_ignored > best_learned)) | (in_crowd & ~positive)


def ignored_points(points: Tensor, boxes: Tensor, state: Tensor, range_px: Tensor) -> Tensor:
    """(B, A) bool: points of a feature pyramid, as FCOS has them, inside an ignored object of their level or a crowd.

    An ignored object belongs to the level that would learn it: the one whose range holds the largest distance from the
    point to a side of the box (arXiv 1904.01355, section 3.2). Points of the other levels stay background there, as
    they do inside a learned object. Points that learn an object are the caller's to leave out.

    Args:
        points: (A, 2) x and y of all levels, network px.
        boxes: (B, N, 4) objects.
        state: (B, N) of the objects.
        range_px: (A, 2) distances that the level of each point learns, low < distance <= high, network px.
    """
    x, y = points.unbind(-1)
    x1, y1, x2, y2 = (side.unsqueeze(-1) for side in boxes.unbind(-1))  # (B, N, 1)
    distances = torch.stack((x - x1, y - y1, x2 - x, y2 - y))  # (4, B, N, A)
    nearest, farthest = distances.amin(dim=0), distances.amax(dim=0)
    of_level = (farthest > range_px[:, 0]) & (farthest <= range_px[:, 1])
    ignored = (state == ObjectState.IGNORED).unsqueeze(-1) & of_level
    crowd = (state == ObjectState.CROWD).unsqueeze(-1)
    return ((nearest > 0) & (ignored | crowd)).any(dim=1)


def ignored_queries(
    queries: Tensor,
    boxes: Tensor,
    state: Tensor,
    matched: Tensor,
    *,
    ignore_iou: float = 0.5,
    crowd_share: float = 0.5,
) -> Tensor:
    """(B, Q) bool: queries of a set predictor, as DETR is one, that found an ignored object or a part of a crowd.

    Queries move, so what they predict decides: a query without an object is not background where the object that it
    overlaps best is ignored, or where it lies mostly inside a crowd region.

    Args:
        queries: (B, Q, 4) predicted boxes, network px.
        boxes: (B, N, 4) objects.
        state: (B, N) of the objects.
        matched: (B, Q) queries that were matched to an object: they learn it whatever lies around.
        ignore_iou: IoU above which a query has found an ignored object.
        crowd_share: share of its area inside one crowd region above which a query is neither.
    """
    if boxes.shape[1] == 0:
        return torch.zeros_like(matched)
    shared = overlaps.intersection(boxes, queries)
    iou = overlaps.iou(boxes, queries, shared)
    best_learned = iou.masked_fill((state != ObjectState.VALID).unsqueeze(-1), -1).amax(dim=1)
    neither = ignored_regions(
        iou, shared, overlaps.area(queries), state,
        best_learned=best_learned, positive=matched, ignore_iou=ignore_iou, crowd_share=crowd_share,
    )  # fmt: skip
    return neither & ~matched


def _in_crowd(shared: Tensor, areas: Tensor, state: Tensor, share: float) -> Tensor:
    """(B, N, A) bool: more than ``share`` of the (B, A) ``areas`` lies inside the object, which is a crowd region."""
    return (shared > (areas * share).unsqueeze(1)) & (state == ObjectState.CROWD).unsqueeze(-1)
