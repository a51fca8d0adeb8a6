"""What keeps a graph of the library's networks right for every batch while torch traces them."""

import builtins
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


@contextmanager
def batch_left_free(net: Any) -> Iterator[None]:
    """Inside, while torch exports, ``len`` in the module of ``net`` is a tensor's first side as torch traces it.

    Python turns what ``len(tensor)`` returns into a plain number, so that RT-DETR's ``len(source_flatten)`` would fix
    the batch of the graph to that of the example.
    """
    module: Any = sys.modules[type(net).__module__]
    if not torch.compiler.is_exporting() or "len" in vars(module):
        yield
        return
    module.len = _length
    try:
        yield
    finally:
        del module.len


def _length(value: Any) -> Any:
    return value.shape[0] if isinstance(value, Tensor) else builtins.len(value)
