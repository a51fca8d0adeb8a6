"""Flips and turns move boxes exactly with the pixels; colour changes leave the padding alone."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torchvision.transforms.v2 import functional

from sniper.loader.colours import recolour
from sniper.loader.config import AugmentConfig
from sniper.loader.transforms import View, turn
from sniper.pixels.resample import BORDER_RGB, planes


def painted(width, height, boxes):
    """Each box in a colour of its own, none overlapping another."""
    region = np.zeros((height, width, 3), np.uint8)
    for number, (x1, y1, x2, y2) in enumerate(boxes, start=1):
        region[y1:y2, x1:x2] = (number, 2 * number, 3 * number)
    return region


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 30),
    height=st.integers(1, 30),
    flips=st.tuples(st.sampled_from([0, 1]), st.sampled_from([0, 1]), st.sampled_from([0, 1])),
    seed=st.integers(0, 2**32),
    data=st.data(),
)
def test_boxes_follow_the_pixels_exactly(width, height, flips, seed, data):
    x = sorted(data.draw(st.lists(st.integers(0, width), min_size=2, max_size=2, unique=True)))
    y = sorted(data.draw(st.lists(st.integers(0, height), min_size=2, max_size=2, unique=True)))
    box = np.asarray([[x[0], y[0], x[1], y[1]]], np.float32)
    config = AugmentConfig(horizontal_flip=flips[0], vertical_flip=flips[1], rotate90=flips[2])
    view = View(painted(width, height, box.astype(int)), box, (32, 40))
    turned = turn(view, config, np.random.default_rng(seed))
    x1, y1, x2, y2 = turned.boxes[0].astype(int)
    shown = np.zeros(turned.region.shape[:2], bool)
    shown[y1:y2, x1:x2] = True
    assert np.array_equal(turned.region[:, :, 0] == 1, shown)
    assert turned.boxes.dtype == np.float32
    # Which turns this may have been is told by pixels that are all different, by the same chance.
    numbers = np.arange(width * height).reshape(height, width)
    pixels = np.stack([numbers & 255, numbers >> 8, numbers * 0], axis=2).astype(np.uint8)
    moved = turn(View(pixels, box, (32, 40)), config, np.random.default_rng(seed)).region
    mirrored = [pixels[:, ::step] for step in ((1, -1) if flips[0] or flips[1] else (1,))]
    quarters = {k for k in range(4) for one in mirrored if np.array_equal(np.rot90(one, k), moved)}
    assert quarters
    assert turned.size_wh in {(32, 40) if k % 2 == 0 else (40, 32) for k in quarters}
    assert flips[2] or turned.size_wh == (32, 40)


def test_fractional_boxes_are_mirrored_about_the_valid_region_not_the_padded_input():
    view = View(np.zeros((50, 100, 3), np.uint8), np.asarray([[1.25, 2.5, 10.5, 20.75]], np.float32), (512, 512))
    turned = turn(view, AugmentConfig(horizontal_flip=1, vertical_flip=1), np.random.default_rng(0))
    assert turned.boxes.tolist() == [[89.5, 29.25, 98.75, 47.5]]


def test_no_objects():
    view = View(np.zeros((50, 100, 3), np.uint8), np.zeros((0, 4), np.float32), (512, 512))
    turned = turn(view, AugmentConfig(horizontal_flip=1, rotate90=1), np.random.default_rng(0))
    assert turned.boxes.shape == (0, 4)


def test_every_turn_happens_and_switching_one_on_changes_no_other():
    region = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    view = View(region, np.zeros((0, 4), np.float32), (2, 2))

    def seen(config):
        return [turn(view, config, np.random.default_rng(seed)).region.tobytes() for seed in range(64)]

    flips, everything = seen(AugmentConfig()), seen(AugmentConfig(vertical_flip=0.5, rotate90=0.5, brightness=0.3))
    assert len(set(flips)) == 2
    assert len(set(everything)) == 8
    plain = seen(AugmentConfig(horizontal_flip=0))
    vertical = seen(AugmentConfig(horizontal_flip=0.5, vertical_flip=0.5))
    untouched = [a == b for a, b in zip(flips, plain, strict=True)]
    assert all(v != p for v, p, u in zip(vertical, plain, untouched, strict=True) if not u)


def noisy_input():
    region = np.random.default_rng(0).integers(60, 190, (20, 30, 3), dtype=np.uint8)
    return planes(region, (40, 32))


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
def test_colours_change_the_valid_region_and_not_the_padding(name):
    config = AugmentConfig.model_validate({name: 0.4})
    before = noisy_input()
    after = recolour(noisy_input(), (30, 20), config, np.random.default_rng(1))
    assert not np.array_equal(after[:, :20, :30], before[:, :20, :30])
    padding = np.concatenate([after[:, 20:].reshape(3, -1), after[:, :20, 30:].reshape(3, -1)], axis=1)
    assert (padding.T == BORDER_RGB).all()
    again = recolour(noisy_input(), (30, 20), config, np.random.default_rng(1))
    assert np.array_equal(after, again)


def test_contrast_is_about_the_mean_of_the_valid_region_alone():
    grey = planes(np.full((20, 30, 3), 80, np.uint8), (40, 32))
    after = recolour(grey, (30, 20), AugmentConfig(contrast=0.9), np.random.default_rng(5))
    assert (np.abs(after[:, :20, :30].astype(int) - 80) <= 1).all()


def test_colours_are_left_alone_by_default():
    padded = noisy_input()
    assert recolour(padded, (30, 20), AugmentConfig(), np.random.default_rng(0)) is padded


@pytest.mark.parametrize(("name", "value"), itertools.product(["horizontal_flip", "rotate90"], [-0.1, 1.1]))
def test_probabilities_are_checked(name, value):
    with pytest.raises(ValidationError):
        AugmentConfig.model_validate({name: value})


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
@pytest.mark.parametrize("seed", range(4))
def test_colours_change_as_torchvision_changes_them(name, seed):
    """Equal but for the last bit of a product, which a truncation makes one level: there is one in a few hundred."""
    padded, config = noisy_input(), AugmentConfig.model_validate({name: 0.9})
    draws = np.random.default_rng(seed).uniform(-1, 1, size=4)
    factor = 1 + 0.9 * draws[["brightness", "contrast", "saturation"].index(name)]
    expected = getattr(functional, f"adjust_{name}")(torch.from_numpy(padded[:, :20, :30].copy()), factor).numpy()
    changed = recolour(padded, (30, 20), config, np.random.default_rng(seed))[:, :20, :30]
    difference = np.abs(changed.astype(int) - expected)
    assert difference.max() <= 1
    assert np.mean(difference > 0) < 0.01
    assert np.abs(expected.astype(int) - noisy_input()[:, :20, :30]).max() > 1, "something changed"
