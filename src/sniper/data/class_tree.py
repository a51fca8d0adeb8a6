"""Classes that are kinds of other classes.

A class may be a kind of several that are not kinds of each other (in OpenImages an oven is a home appliance and a
kitchen appliance). So a table holds pairs of a class and one of its ancestors: all ancestors, not only the nearest.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sniper.errors import DataError


def ancestors_of(parents: NDArray[np.integer], class_names: Sequence[str]) -> NDArray[np.int32]:
    """(A, 2) all pairs of a class and an ancestor, sorted, each once.

    Args:
        parents: (E, 2) pairs of a class and one that it is a kind of, in any order, repeated or not.
        class_names: C names, for messages.

    Raises:
        DataError: a class is its own ancestor.
    """
    above = is_ancestor(np.asarray(parents, np.int32).reshape(-1, 2), len(class_names))
    while True:
        further = above | (above.astype(np.float32) @ above.astype(np.float32) > 0)
        if (further == above).all():
            break
        above = further
    _refuse_loops(above, class_names)
    return np.argwhere(above).astype(np.int32)


def is_ancestor(ancestors: NDArray[np.int32], classes: int) -> NDArray[np.bool_]:
    """(C, C) whether the second class is an ancestor of the first, from (A, 2) pairs."""
    above = np.zeros((classes, classes), np.bool_)
    above[ancestors[:, 0], ancestors[:, 1]] = True
    return above


def check_class_tree(ancestors: NDArray[np.int32], class_names: Sequence[str]) -> None:
    """Refuse pairs that are not all the ancestors of the classes, as ``ancestors_of`` gives them.

    Raises:
        DataError: a pair names no class, an ancestor of an ancestor is missing, or a class is its own ancestor.
    """
    classes = len(class_names)
    if ancestors.dtype != np.int32 or ancestors.ndim != 2 or ancestors.shape[1] != 2:
        raise DataError(f"class ancestors are {ancestors.dtype} {ancestors.shape}, not int32 (pairs, 2)")
    wrong = np.flatnonzero(((ancestors < 0) | (ancestors >= classes)).any(axis=1))
    if len(wrong):
        pair = ancestors[wrong[0]].tolist()
        raise DataError(f"class ancestors {pair} name no class; give pairs of 0..{classes - 1}")
    above = is_ancestor(ancestors, classes)
    _refuse_loops(above, class_names)
    missing = np.argwhere((above.astype(np.float32) @ above.astype(np.float32) > 0) & ~above)
    if len(missing):
        low, high = missing[0]
        raise DataError(
            f"class ancestors lack that {class_names[low]!r} is a kind of {class_names[high]!r}; "
            "give all ancestors of a class, not only the nearest"
        )


def ancestors_of_some(ancestors: NDArray[np.int32], new_label: NDArray[np.int32]) -> NDArray[np.int32]:
    """The pairs of which both classes were chosen, by their new labels, sorted.

    Args:
        ancestors: (A, 2) pairs of all classes.
        new_label: (C,) index of each class among the chosen ones, -1 for one that was not chosen.
    """
    pairs = new_label[ancestors].astype(np.int32).reshape(-1, 2)
    pairs = pairs[(pairs >= 0).all(axis=1)]
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def lines_of(
    ancestors: NDArray[np.int32] | None, classes: int, *, up: bool
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Each class with all above it (``up``) or all below it, as rows behind (C + 1,) offsets; itself comes first.

    Args:
        ancestors: (A, 2) pairs of a class and an ancestor, all of them; None: no tree.
        classes: C.
        up: the classes above, not those below.
    """
    own = np.repeat(np.arange(classes, dtype=np.int32)[:, None], 2, axis=1)
    pairs = own if ancestors is None else np.concatenate([own, ancestors])
    keys, values = pairs.T if up else pairs.T[::-1]
    order = np.argsort(keys, kind="stable")
    return values[order], np.searchsorted(keys[order], np.arange(classes + 1)).astype(np.int64)


def with_kinds(chosen: NDArray[np.bool_], ancestors: NDArray[np.int32] | None) -> NDArray[np.bool_]:
    """(C,) the chosen classes and every kind of them; without a tree (None) the chosen ones alone.

    Args:
        chosen: (C,) classes.
        ancestors: (A, 2) pairs of a class and an ancestor, all of them.
    """
    if ancestors is None:
        return chosen
    wider = chosen.copy()
    wider[ancestors[chosen[ancestors[:, 1]], 0]] = True
    return wider


def _refuse_loops(above: NDArray[np.bool_], class_names: Sequence[str]) -> None:
    own = np.flatnonzero(np.diagonal(above) | (above & above.T).any(axis=1))
    if len(own):
        raise DataError(f"class {class_names[own[0]]!r} is its own ancestor; mend the hierarchy of the classes")
