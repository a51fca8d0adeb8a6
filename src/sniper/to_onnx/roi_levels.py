"""RoIAlign over several maps in ONNX: the regions of each map, one map after the other, put back into their order."""

from collections.abc import Sequence
from typing import Any

from onnxscript import opset18 as op

INT64 = 7  # as ONNX counts types of numbers


def roi_align_levels(
    maps: Sequence[Any], regions: Any, level: Any, scales: Sequence[float], cells: int, samples: int
) -> Any:
    """What ``nn.roi_levels.roi_align_levels`` computes."""
    first, zero, one = op.Constant(value_ints=[0]), op.Constant(value_int=0), op.Constant(value_int=1)
    image = op.Cast(op.Squeeze(op.Gather(regions, first, axis=1), op.Constant(value_ints=[1])), to=INT64)
    boxes = op.Gather(regions, op.Constant(value_ints=[1, 2, 3, 4]), axis=1)
    rows, parts = [], []
    for number, (features, scale) in enumerate(zip(maps, scales, strict=True)):
        own = op.Squeeze(op.NonZero(op.Equal(level, op.Constant(value_int=number))), first)
        rows.append(own)
        parts.append(
            op.RoiAlign(
                features,
                op.Gather(boxes, own),
                op.Gather(image, own),
                coordinate_transformation_mode="output_half_pixel",
                output_height=cells,
                output_width=cells,
                sampling_ratio=samples,
                spatial_scale=scale,
            )
        )
    order = op.Concat(*rows, axis=0)
    place = op.ScatterElements(order, order, op.Range(zero, op.Squeeze(op.Shape(order)), one), axis=0)
    return op.Gather(op.Concat(*parts, axis=0), place, axis=0)
