"""Dividing: near the wanted share, the same every time, and never through a group."""

import numpy as np
import pytest

from sniper.data.dividing import divide, groups_of
from sniper.errors import DataError, RecipeError

FRAMES = [f"street{film}_{frame:04d}.jpg" for film in range(20) for frame in range(film + 1)]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8, 0.95])
@pytest.mark.parametrize("seed", [0, 1])
def test_groups_are_never_separated(share: float, seed: int) -> None:
    groups = groups_of(FRAMES, r"^(.+?)_\d")
    first = divide(groups, share, seed)
    assert len(set(groups)) == 20
    for group in set(groups):
        assert len({bool(one) for one, name in zip(first, groups, strict=True) if name == group}) == 1
    assert abs(first.mean() - share) <= 20 / len(FRAMES), "no nearer than a group"
    np.testing.assert_array_equal(first, divide(groups, share, seed))
    assert not np.array_equal(divide(groups, 0.5, 0), divide(groups, 0.5, 1))


def test_images_alone_come_as_near_as_one() -> None:
    first = divide(FRAMES, 0.8)
    assert round(0.8 * len(FRAMES)) == first.sum()
    longer = divide([*FRAMES, "new.jpg"], 0.8)[:-1]
    assert (first != longer).sum() <= 2, "one image more moves few others"
    assert divide(["a", "b"], 0.999).tolist().count(False) == 1, "both parts have an image"


def test_patterns() -> None:
    assert groups_of(["a1_x", "a2_x", "b"], r"^[a-z]") == ["a", "a", "b"]
    assert groups_of(["a1_x", "b2_y", "none"], r"_(.)") == ["x", "y", "none"]
    with pytest.raises(RecipeError, match="not a regular expression"):
        groups_of(["a"], "(")
    with pytest.raises(DataError, match="finds nothing in 1 names such as a"):
        groups_of(["a"], "z")
    with pytest.raises(DataError, match="all 2 images are of one group"):
        divide(["a", "a"], 0.5)
