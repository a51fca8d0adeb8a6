"""Classes that are kinds of other classes: the index of each one's parent."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sniper.errors import DataError


def check_class_tree(parents: NDArray[np.int32], class_names: Sequence[str]) -> None:
    """Refuse parents that are no tree over the classes.

    Args:
        parents: (C,) index of the parent of each class, -1 for a root.

    Raises:
        DataError: another number of classes, a parent that is no class, or a class that is its own ancestor.
    """
    classes = len(class_names)
    if parents.dtype != np.int32 or parents.shape != (classes,):
        raise DataError(f"class parents are {parents.dtype} {parents.shape}, not int32 ({classes},); give one a class")
    wrong = np.flatnonzero((parents < -1) | (parents >= classes))
    if len(wrong):
        row = int(wrong[0])
        raise DataError(
            f"class {class_names[row]!r} has parent {parents[row]}, which is no class; give 0..{classes - 1}, or -1"
        )
    above = parents.copy()
    for _ in range(classes + 1):
        if (above < 0).all():
            return
        above = np.where(above >= 0, parents[above], above)
    row = int(np.argmax(above >= 0))
    raise DataError(f"class {class_names[row]!r} is its own ancestor; mend the parents of the classes")


def parents_of_some(
    parents: NDArray[np.int32], old_label: NDArray[np.int64], new_label: NDArray[np.int32]
) -> NDArray[np.int32]:
    """(K,) parents among chosen classes: the nearest ancestor that was chosen, -1 where none was.

    Args:
        parents: (C,) of all classes, a tree.
        old_label: (K,) index of each chosen class among all, -1 for one that is new.
        new_label: (C,) index of each class among the chosen ones, -1 for one that was not chosen.
    """
    if not len(parents):
        return np.full(len(old_label), -1, np.int32)
    above = np.where(old_label >= 0, parents[old_label], -1)
    while True:
        passed = (above >= 0) & (new_label[above] < 0)
        if not passed.any():
            return np.where(above >= 0, new_label[above], -1).astype(np.int32)
        above = np.where(passed, parents[above], above)
