"""A box and the pixels under it never drift."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sniper.pixels.decode import read_image
from sniper.pixels.resample import BORDER_RGB, cut, planes

reductions = st.sampled_from([1, 2, 4, 8])
scales = st.floats(0.1, 4.0)


def reduced(image, reduction):
    height, width = image.shape[:2]
    padded = np.pad(image, ((0, -height % reduction), (0, -width % reduction), (0, 0)), mode="edge").astype(float)
    blocks = padded.reshape(padded.shape[0] // reduction, reduction, -1, reduction, 3)
    return np.round(blocks.mean(axis=(1, 3))).astype(np.uint8)


def coverage(low, high, length):
    """Share of each of ``length`` pixels that [low, high) covers."""
    edges = np.clip(np.arange(length + 1), low, high)
    return np.diff(edges)


def rectangle(box, size_wh):
    """White on black, anti-aliased exactly."""
    x = coverage(box[0], box[2], size_wh[0])
    y = coverage(box[1], box[3], size_wh[1])
    return np.repeat(np.round(255 * np.outer(y, x)).astype(np.uint8)[:, :, None], 3, axis=2)


def measured_box(content):
    """The rectangle that casts these column and row sums: centre from the first moment, side from the mass."""
    weights = content[:, :, 0] / 255
    columns, rows = weights.sum(axis=0), weights.sum(axis=1)
    centre = [(c * (np.arange(len(c)) + 0.5)).sum() / c.sum() for c in (columns, rows)]
    side = [weights.sum() / rows.max(), weights.sum() / columns.max()]
    return np.asarray(
        [centre[0] - side[0] / 2, centre[1] - side[1] / 2, centre[0] + side[0] / 2, centre[1] + side[1] / 2]
    )


@settings(max_examples=100, deadline=None)
@given(scale=scales, reduction=reductions, data=st.data())
def test_the_pixels_of_a_box_lie_where_the_box_is_said_to_be(scale, reduction, data):
    if scale * reduction > 1:
        reduction = 1  # what the loader does
    size_wh = (400, 300)
    side = st.floats(max(10.0, 12 / scale), max(20.0, 16 / scale))
    width, height = data.draw(side), data.draw(side)
    x1 = data.draw(st.floats(8, 400 - width - 8))
    y1 = data.draw(st.floats(8, 300 - height - 8))
    box = np.asarray([x1, y1, x1 + width, y1 + height])
    origin = np.floor(box[:2] * scale - data.draw(st.floats(4, 9))).astype(int)
    origin = np.maximum(origin, 0)
    chip = cut(
        reduced(rectangle(box, size_wh), reduction), tuple(origin), scale, (112, 112), (112, 112), reduction=reduction
    )
    said = box * scale - np.tile(origin, 2)
    found = measured_box(chip)
    # Bilinear samples of a hard edge, scaled in by an uneven factor, are off by up to 0.07 px whatever their place.
    near = 0.03 if scale <= 1 else 0.1
    np.testing.assert_allclose((found[:2] + found[2:]) / 2, (said[:2] + said[2:]) / 2, atol=near)


@settings(max_examples=80, deadline=None)
@given(scale=scales, reduction=reductions, x=st.floats(150, 250), y=st.floats(120, 180), data=st.data())
def test_a_soft_blob_stays_within_a_twentieth_of_a_pixel(scale, reduction, x, y, data):
    if scale * reduction > 1:
        reduction = 1
    sigma = max(1.5, 2 / scale)
    u, v = np.arange(400) + 0.5 - x, np.arange(300) + 0.5 - y
    image = 255 * np.exp(-(u**2 + v[:, None] ** 2) / (2 * sigma**2))
    image = np.repeat(np.round(image).astype(np.uint8)[:, :, None], 3, axis=2)
    side = int(8 * max(sigma * scale, 2)) + 8
    said = np.asarray([x, y]) * scale
    origin = np.maximum(np.floor(said - side / 2 + data.draw(st.floats(-2, 2))), 0).astype(int)
    chip = cut(reduced(image, reduction), tuple(origin), scale, (side, side), (side, side), reduction=reduction)
    found = measured_box(chip)
    np.testing.assert_allclose((found[:2] + found[2:]) / 2, said - origin, atol=0.05)


@pytest.mark.parametrize("reduction", [1, 2, 4, 8])
@pytest.mark.parametrize("scale", [0.1, 0.125])
def test_jpegs_decoded_at_reduced_scale_do_not_drift_either(tmp_path, reduction, scale):
    rng = np.random.default_rng(3)
    for _ in range(4):
        corner = rng.uniform(150, 400, 2)
        box = np.concatenate([corner, corner + rng.uniform(180, 320, 2)])
        encoded = io.BytesIO()
        Image.fromarray(rectangle(box, (1003, 807))).save(encoded, "JPEG", quality=95)
        (tmp_path / "a.jpg").write_bytes(encoded.getvalue())
        pixels = read_image(tmp_path / "a.jpg", reduction=reduction)
        origin = (3, 5)
        chip = cut(pixels, origin, scale, (96, 75), (96, 75), reduction=reduction)
        said = box * scale - np.tile(origin, 2)
        found = measured_box(chip)
        np.testing.assert_allclose((found[:2] + found[2:]) / 2, (said[:2] + said[2:]) / 2, atol=0.05)


def noise(width, height, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_at_scale_one_the_chip_is_a_copy_of_the_pixels():
    image = noise(90, 70)
    chip = cut(image, (11, 13), 1.0, (40, 30), (40, 30))
    assert np.array_equal(chip, image[13:43, 11:51])
    chip[:] = 0
    assert image.any()


@pytest.mark.parametrize("k", [2, 3, 5])
def test_at_a_whole_reduction_pixels_are_exact_means_of_blocks(k):
    image = noise(60, 90)
    chip = cut(image, (0, 0), 1 / k, (60 // k, 90 // k), (60 // k, 90 // k))
    means = image.reshape(90 // k, k, 60 // k, k, 3).mean(axis=(1, 3))
    assert np.abs(chip - means).max() <= 0.5


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 40),
    height=st.integers(1, 40),
    scale=st.floats(0.05, 6),
    reduction=reductions,
    x0=st.integers(0, 60),
    y0=st.integers(0, 60),
)
def test_no_dark_fringe_at_the_edge_and_neutral_padding_beyond(width, height, scale, reduction, x0, y0):
    flat = np.full((-(-height // reduction), -(-width // reduction), 3), (200, 50, 90), np.uint8)
    valid_wh = (max(1, int(width * scale) - x0), max(1, int(height * scale) - y0))
    valid_wh = (min(valid_wh[0], 48), min(valid_wh[1], 48))
    chip = cut(flat, (x0, y0), scale, (48, 48), valid_wh, reduction=reduction)
    assert chip.shape == (48, 48, 3)
    assert chip.dtype == np.uint8
    assert (chip[: valid_wh[1], : valid_wh[0]] == (200, 50, 90)).all()
    assert (chip[valid_wh[1] :] == BORDER_RGB).all()
    assert (chip[:, valid_wh[0] :] == BORDER_RGB).all()


def test_the_source_may_be_a_view():
    image = noise(64, 64)[:, ::-1]
    assert np.array_equal(
        cut(image, (3, 2), 1.7, (32, 32), (32, 32)), cut(np.ascontiguousarray(image), (3, 2), 1.7, (32, 32), (32, 32))
    )


def test_planes_are_the_padded_input_channel_by_channel():
    image = noise(30, 20)
    padded_image = planes(image, (33, 40))
    assert np.array_equal(padded_image[:, :20, :30].transpose(1, 2, 0), image)
    assert (padded_image[:, 20:].transpose(1, 2, 0) == BORDER_RGB).all()
    assert (padded_image[:, :, 30:].transpose(1, 2, 0) == BORDER_RGB).all()
