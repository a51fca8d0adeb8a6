"""Masks on pictures."""

import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from sniper.data.columns import PackedStrings
from sniper.data.run_lengths import RunLengths
from sniper.inference.masks import encode_masks
from sniper.report.draw import draw_detections
from sniper.report.masks import VEIL, draw_masks, sampled_mask, trace_masks
from sniper.report.palette import class_color


def runs_of(masks):
    counts = [coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode() for mask in masks]
    return RunLengths(PackedStrings.pack(counts), np.asarray([mask.shape for mask in masks], np.int32))


def disc(x, y, radius):
    rows, columns = np.mgrid[:80, :100]
    return (columns - x) ** 2 + (rows - y) ** 2 < radius**2


def test_the_veil_lies_on_the_mask_and_nowhere_else():
    pixels = np.full((80, 100, 3), 100, np.uint8)
    mask = disc(40, 30, 15)
    draw_masks(pixels, runs_of([mask]), np.asarray([[25.0, 15.0, 56.0, 46.0]]), [(200, 0, 0)])
    assert (pixels[~mask] == 100).mean() > 0.98  # the outline is smoothed
    assert np.abs(pixels[30, 40] - np.asarray([100 + 100 * VEIL, 100 * (1 - VEIL), 100 * (1 - VEIL)])).max() <= 1


def test_detections_below_the_score_have_no_veil_and_the_best_lies_on_top():
    pixels = np.full((80, 100, 3), 100, np.uint8)
    masks = [disc(30, 40, 20), disc(70, 40, 8), disc(32, 40, 20)]
    boxes = np.asarray([[9.0, 19, 52, 62], [61, 31, 80, 50], [11, 19, 54, 62]])
    drawn = draw_detections(
        pixels,
        boxes,
        np.asarray([0.9, 0.1, 0.5]),
        np.asarray([0, 1, 2]),
        ("a", "b", "c"),
        masks=runs_of(masks),
        tags=False,
        counts=False,
    )
    assert (drawn[40, 70] == 100).all()
    tint = drawn[40, 30].astype(float) - (1 - VEIL) * (100 * (1 - VEIL) + VEIL * np.asarray(class_color(2)))
    assert np.abs(tint - VEIL * np.asarray(class_color(0))).max() < 3
    empty = draw_detections(
        pixels, boxes[:0], np.zeros(0), np.zeros(0, int), ("a",), masks=runs_of([]).take(np.zeros(0, int))
    )
    assert (empty == pixels).all()


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    density=st.sampled_from([0, 0.02, 0.5, 0.98, 1]),
    step=st.integers(1, 7),
)
def test_any_pixels_of_a_mask_without_decoding_it(seed, size, density, step):
    random = np.random.default_rng(seed)
    masks = random.random((2, *size)) < density
    columns = np.arange(random.integers(0, 5), size[1] + 3, step)
    rows = np.unique(random.integers(0, size[0], 9))
    found = sampled_mask(runs_of(masks), 1, columns, rows)
    np.testing.assert_array_equal(found, masks[1][rows][:, columns[columns < size[1]]])


def test_masks_of_a_huge_image_are_drawn_on_a_small_copy():
    """20,000 x 20,000 px: nothing of that size is made."""
    box = np.asarray([[8000.0, 5000, 12_000, 10_000]])
    masks = encode_masks(np.ones((1, 28, 28), np.float32), box, (20_000, 20_000))
    pixels = np.full((500, 500, 3), 100, np.uint8)
    drawn = draw_detections(
        pixels, box, np.ones(1), np.zeros(1, int), ("a",), masks=masks, scale=0.025, tags=False, counts=False
    )
    rows, columns = np.nonzero((drawn != 100).any(axis=2))
    assert abs(np.asarray([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) - box * 0.025).max() <= 1
    assert (drawn[130:245, 205:295] != 100).any(axis=2).all()


def test_rings_around_masks_give_them_back():
    both = disc(30, 40, 20) | disc(70, 40, 8)
    spot = np.zeros((80, 100), bool)
    spot[7, 9] = True
    masks = runs_of([both, spot, np.zeros((80, 100), bool)])
    traced = trace_masks(masks, np.asarray([[10.4, 20, 79, 61], [9, 7, 10, 8], [5, 5, 9, 9]]))
    assert [len(rings) for rings in traced] == [2, 1, 0]
    filled = np.zeros((80, 100), np.uint8)
    for ring in traced[0]:
        cv2.fillPoly(filled, [np.round((ring - 0.5) * 64).astype(np.int32)], 1, shift=6)
    assert (filled.astype(bool) != both).mean() < 0.005
    np.testing.assert_allclose(traced[1][0].min(axis=0), [9.25, 7.25])
    np.testing.assert_allclose(traced[1][0].max(axis=0), [9.75, 7.75])


def test_a_huge_mask_is_traced_coarsely():
    box = np.asarray([[8000.0, 5000, 12_000, 10_000]])
    masks = encode_masks(np.ones((1, 28, 28), np.float32), box, (20_000, 20_000))
    ((ring,),) = trace_masks(masks, box)
    np.testing.assert_allclose([*ring.min(axis=0), *ring.max(axis=0)], box[0], atol=10)
