"""Rows of the layers that know the classes, for starting from a detector of other classes."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from torch import Tensor


class RowsOf(NamedTuple):
    """How the rows of a layer belong to classes: ``repeats`` runs of the classes, ``width`` rows a class in each."""

    background: bool = False  # with a class for background before the others
    repeats: int = 1  # one after the other: of anchors, of sides
    width: int = 1  # next to each other: of the numbers of a box
    no_object: bool = False  # with a class for no object after the others


ClassRows = Literal["classes", "background", "pairs"] | RowsOf  # a row a class; background too; two runs of them

_FORMS = {"classes": RowsOf(), "background": RowsOf(background=True), "pairs": RowsOf(repeats=2)}


def row_of_each(form: ClassRows, classes: Sequence[str], former: Sequence[str]) -> list[tuple[int, int]]:
    """Which rows of a layer for ``classes`` are which of the same layer for ``former``; classes are told by name."""
    rows, place = _form(form), {name: index for index, name in enumerate(former)}
    both = [(index, place[name]) for index, name in enumerate(classes) if name in place]
    if rows.background:
        both = [(0, 0), *((new + 1, old + 1) for new, old in both)]
    if rows.no_object:
        both = [*both, (len(classes) + rows.background, len(former) + rows.background)]
    runs = tuple(len(names) + rows.background + rows.no_object for names in (classes, former))
    return [
        ((run * runs[0] + new) * rows.width + number, (run * runs[1] + old) * rows.width + number)
        for run in range(rows.repeats)
        for new, old in both
        for number in range(rows.width)
    ]


def rows_of(form: ClassRows, classes: int) -> int:
    """Rows of a layer for so many classes."""
    rows = _form(form)
    return (classes + rows.background + rows.no_object) * rows.repeats * rows.width


def with_rows(own: Tensor, found: Tensor, rows: Sequence[tuple[int, int]]) -> Tensor:
    """``own`` with the rows (new, old) taken from ``found``."""
    mixed = own.clone()
    if rows:
        new, old = zip(*rows, strict=True)
        mixed[list(new)] = found[list(old)].to(mixed.dtype)
    return mixed


def _form(form: ClassRows) -> RowsOf:
    return form if isinstance(form, RowsOf) else _FORMS[form]
