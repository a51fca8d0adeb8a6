"""Conditions that a traced network checks, in ONNX."""

from typing import Any

from onnxscript import opset18 as op

INT64, BOOL = 7, 9  # types of numbers, as ONNX counts them


def is_all_true(values: Any) -> Any:
    """Whether all of ``values`` hold: transformers compares the sizes of its maps so; nothing depends on it."""
    return op.Cast(op.ReduceMin(op.Cast(values, to=INT64), keepdims=0), to=BOOL)
