"""Images that show the same are paired, whatever their number and order; others are not."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sniper.checks.config import CheckConfig
from sniper.checks.similar import similar_images

CONFIG = CheckConfig()


def _scenes(count: int, seed: int = 0) -> np.ndarray:
    """(count, 32, 32) smooth pictures, none like another."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 8, 8))
    return np.repeat(np.repeat(coarse, 4, axis=1), 4, axis=2).astype(np.uint8)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 40), st.integers(0, 1000), st.data())
def test_copies_and_noisy_copies_are_paired_with_their_first(count: int, seed: int, data: st.DataObject) -> None:
    scenes = _scenes(count, seed)
    random = np.random.default_rng(seed)
    of = random.integers(0, max(count, 1), 2 * count)
    noise = random.integers(-1, 2, (2 * count, 32, 32)) * random.integers(0, 2, (2 * count, 1, 1))
    copies = np.clip(scenes[of].astype(int) + noise, 0, 255).astype(np.uint8) if count else scenes
    pairs = similar_images(np.concatenate([scenes, copies]), CONFIG)
    origin = np.concatenate([np.arange(count), of]) if count else np.zeros(0, int)
    assert (pairs.first < pairs.second).all()
    np.testing.assert_array_equal(origin[pairs.first], origin[pairs.second])
    np.testing.assert_array_equal(np.sort(pairs.second), np.arange(count, 3 * count))
    exact = pairs.difference == 0
    assert (pairs.first[exact] <= pairs.second[exact]).all()


def test_flat_pictures_tell_nothing() -> None:
    flat = np.full((5, 32, 32), 90, np.uint8)
    assert len(similar_images(flat, CONFIG).first) == 0
    assert len(similar_images(flat[:0], CONFIG).first) == 0


def test_other_scenes_are_not_paired() -> None:
    assert len(similar_images(_scenes(2000), CONFIG).first) == 0
