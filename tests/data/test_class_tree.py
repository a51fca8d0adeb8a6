"""Classes that are kinds of other classes."""

import itertools

import numpy as np
import pytest
from test_annotation_table import make_table

from sniper.data.class_tree import ancestors_of, ancestors_of_some, check_class_tree, lines_of, with_kinds
from sniper.errors import DataError

NAMES = ["animal", "cat", "lynx", "car", "pet"]
PARENTS = [[2, 1], [1, 0], [1, 4], [1, 0]]  # a cat is an animal, which is said twice, and a pet
ANCESTORS = [[1, 0], [1, 4], [2, 0], [2, 1], [2, 4]]


def test_ancestors_of_ancestors_are_ancestors():
    found = ancestors_of(np.array(PARENTS), NAMES)
    check_class_tree(found, NAMES)
    assert found.tolist() == ANCESTORS
    assert ancestors_of(np.zeros((0, 2)), NAMES).shape == ancestors_of(np.zeros((0, 2)), []).shape == (0, 2)
    with pytest.raises(DataError, match="'animal' is its own ancestor"):
        ancestors_of(np.array([[0, 1], [1, 2], [2, 0]]), NAMES)


@pytest.mark.parametrize(
    ("chosen", "pairs"),
    [
        ([0, 1, 2, 3, 4], ANCESTORS),
        ([2, 0], [[0, 1]]),  # the cat between them is gone
        ([2, 3], []),
        ([4, 3, -1, 2], [[3, 0]]),  # with a class that the dataset lacks
        ([], []),
    ],
)
def test_ancestors_among_some(chosen, pairs):
    new_label = np.full(len(NAMES), -1, np.int32)
    for place, label in enumerate(chosen):
        if label >= 0:
            new_label[label] = place
    found = ancestors_of_some(np.array(ANCESTORS, np.int32), new_label)
    assert found.dtype == np.int32
    assert found.tolist() == pairs


def test_what_is_no_tree_is_named():
    check_class_tree(np.array(ANCESTORS, np.int32), NAMES)
    check_class_tree(np.zeros((0, 2), np.int32), [])
    for pairs, said in (
        ([[1, 2], [2, 1]], "'cat' is its own ancestor"),
        ([[1, 0], [3, 5]], r"\[3, 5\] name no class; .*0\.\.4"),
        ([[2, 1], [1, 0]], "'lynx' is a kind of 'animal'"),
    ):
        with pytest.raises(DataError, match=said):
            check_class_tree(np.array(pairs, np.int32), NAMES)
    with pytest.raises(DataError, match=r"int64 \(5, 2\), not int32"):
        check_class_tree(np.array(ANCESTORS), NAMES)


def test_a_table_keeps_its_tree_among_fewer_classes():
    table = make_table(3, 9).with_classes(["dog", "yak", "eel"], missing="allow").check()
    assert table.class_ancestors.tolist() == [[2, 0]]


def test_lines_begin_with_the_class_itself() -> None:
    pairs = np.array([[1, 0], [2, 0], [2, 1]], np.int32)
    above, offsets = lines_of(pairs, 4, up=True)
    assert [above[a:b].tolist() for a, b in itertools.pairwise(offsets)] == [[0], [1, 0], [2, 0, 1], [3]]
    below, offsets = lines_of(pairs, 4, up=False)
    assert [below[a:b].tolist() for a, b in itertools.pairwise(offsets)] == [[0, 1, 2], [1, 2], [2], [3]]
    assert lines_of(None, 2, up=True)[0].tolist() == [0, 1]


def test_kinds_of_chosen_classes() -> None:
    pairs = np.array([[1, 0], [2, 0], [2, 1]], np.int32)
    chosen = np.array([False, True, False, True])
    assert with_kinds(chosen, pairs).tolist() == [False, True, True, True]
    assert with_kinds(chosen, None).tolist() == chosen.tolist()
