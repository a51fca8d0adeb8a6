"""Greedy suppression in ONNX: NonMaxSuppression, its pairs packed into as many slots an image as may be kept."""

from typing import Any

from onnxscript import opset18 as op

FLOAT, INT64 = 1, 7  # types of numbers, as ONNX counts them
NEVER, LEAST = -3e38, -1e38  # score of what takes no part; what is kept scores more than LEAST


def keep_greedily(boxes: Any, candidates: Any, keep: int, iou: float) -> tuple[Any, Any]:
    """What ``nn.suppress_fixed.keep_fixed`` computes: (B, keep) indices and (B,) how many of them count.

    The boxes come best first, so that minus its rank is the score of each. NonMaxSuppression compares corners, which
    may be in either order, and keeps what overlaps by at most ``iou``.
    """
    first, second, many = (op.Constant(value_ints=[number]) for number in (0, 1, keep))
    zero, one = op.Constant(value_int=0), op.Constant(value_int=1)
    shape = op.Shape(boxes)
    images, slots = op.Gather(shape, first, axis=0), op.Gather(shape, second, axis=0)
    rank = op.Unsqueeze(op.Range(zero, op.Squeeze(slots), one), first)
    takes_part = op.Less(rank, op.Unsqueeze(candidates, second))
    scores = op.Where(takes_part, op.Neg(op.Cast(rank, to=FLOAT)), op.Constant(value_float=NEVER))
    pairs = op.NonMaxSuppression(
        boxes, op.Unsqueeze(scores, second), many, op.Constant(value_floats=[iou]), op.Constant(value_floats=[LEAST])
    )
    image = op.Squeeze(op.Gather(pairs, first, axis=1), second)
    box = op.Squeeze(op.Gather(pairs, op.Constant(value_ints=[2]), axis=1), second)
    every_image = op.Unsqueeze(op.Range(zero, op.Squeeze(images), one), second)
    counts = op.ReduceSum(op.Cast(op.Equal(every_image, op.Unsqueeze(image, first)), to=INT64), second, keepdims=0)
    start = op.Sub(op.CumSum(counts, zero), counts)
    slot = op.Sub(op.Range(zero, op.Squeeze(op.Shape(image)), one), op.Gather(start, image))
    places = op.Concat(op.Unsqueeze(image, second), op.Unsqueeze(slot, second), axis=1)
    empty = op.Expand(zero, op.Concat(images, many, axis=0))
    return op.ScatterND(empty, places, box), counts
