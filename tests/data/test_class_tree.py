"""Classes that are kinds of other classes."""

import numpy as np
import pytest
from test_annotation_table import make_table

from sniper.data.class_tree import check_class_tree, parents_of_some
from sniper.errors import DataError

NAMES = ["animal", "cat", "lynx", "car"]
PARENTS = np.array([-1, 0, 1, -1], np.int32)


@pytest.mark.parametrize(
    ("chosen", "parents"),
    [
        ([0, 1, 2, 3], [-1, 0, 1, -1]),
        ([2, 0], [1, -1]),  # the cat between them is gone
        ([2, 3], [-1, -1]),
        ([3, -1, 1, 0], [-1, -1, 3, -1]),  # a class that the dataset lacks is a root
        ([], []),
    ],
)
def test_the_nearest_chosen_ancestor_is_the_parent(chosen, parents):
    new_label = np.full(len(NAMES), -1, np.int32)
    for place, label in enumerate(chosen):
        if label >= 0:
            new_label[label] = place
    found = parents_of_some(PARENTS, np.array(chosen, np.int64), new_label)
    assert found.dtype == np.int32
    assert found.tolist() == parents


def test_no_classes_are_a_tree():
    check_class_tree(np.zeros(0, np.int32), [])
    nothing = np.zeros(0, np.int32)
    assert parents_of_some(nothing, np.array([-1, -1]), nothing).tolist() == [-1, -1]


def test_what_is_no_tree_is_named():
    check_class_tree(PARENTS, NAMES)
    for parents, said in (
        ([1, 2, 0, -1], "'animal' is its own ancestor"),
        ([-1, 4, 0, 0], "'cat' has parent 4, which"),
    ):
        with pytest.raises(DataError, match=said):
            check_class_tree(np.array(parents, np.int32), NAMES)
    with pytest.raises(DataError, match=r"int64 \(4,\), not int32"):
        check_class_tree(PARENTS.astype(np.int64), NAMES)


def test_a_table_keeps_its_tree_among_fewer_classes():
    table = make_table(3, 9).with_classes(["dog", "yak", "eel"], missing="allow").check()
    assert table.class_parents.tolist() == [-1, -1, 0]
