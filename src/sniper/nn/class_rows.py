"""Rows of the layers that know the classes, for starting from a detector of other classes."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

ClassRows = Literal["classes", "background", "pairs"]  # a row a class; background before them; two runs of them


def row_of_each(form: ClassRows, classes: Sequence[str], former: Sequence[str]) -> list[tuple[int, int]]:
    """Which rows of a layer for ``classes`` are which of the same layer for ``former``; classes are told by name."""
    place = {name: index for index, name in enumerate(former)}
    both = [(index, place[name]) for index, name in enumerate(classes) if name in place]
    if form == "background":
        return [(0, 0), *((new + 1, old + 1) for new, old in both)]
    if form == "pairs":
        return both + [(new + len(classes), old + len(former)) for new, old in both]
    return both


def rows_of(form: ClassRows, classes: int) -> int:
    """Rows of a layer for so many classes."""
    return {"classes": classes, "background": classes + 1, "pairs": 2 * classes}[form]


def with_rows(own: Tensor, found: Tensor, rows: Sequence[tuple[int, int]]) -> Tensor:
    """``own`` with the rows (new, old) taken from ``found``."""
    mixed = own.clone()
    for new, old in rows:
        mixed[new] = found[old].to(mixed.dtype)
    return mixed
