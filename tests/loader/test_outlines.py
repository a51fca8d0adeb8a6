"""Outlines: every number where the mask branch looks for it, moved with the boxes, and gone when not asked for."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loader_cases import chips_of, dataset, same

from sniper.data.columns import MaskBuilder
from sniper.loader.config import AugmentConfig, LoaderConfig
from sniper.loader.outlines import outlines_in_chip
from sniper.loader.stream import ChipLoader
from sniper.nn.mask_targets import encode_polygons

LIVELY = AugmentConfig(horizontal_flip=0.5, vertical_flip=0.5, rotate90=0.5)


def masks_of(objects):
    builder = MaskBuilder()
    for rings in objects:
        builder.add(rings=rings)
    return builder.build()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(3, 9), max_size=4), max_size=6), st.integers(0, 2**32 - 1))
def test_rows_are_those_of_the_plain_encoder(sizes, seed):
    rng = np.random.default_rng(seed)
    objects = [[rng.uniform(0, 100, 2 * size).astype(np.float32) for size in own] for own in sizes]
    rows = rng.permutation(len(objects))
    labels = rng.integers(0, 9, len(objects))
    crowd = rng.uniform(size=len(objects)) < 0.2
    found = outlines_in_chip(masks_of(objects), rows, crowd, np.array([5, -3]), 1.5).rows(labels)
    shown = [[] if alone else objects[row] for row, alone in zip(rows, crowd, strict=True)]
    wanted = encode_polygons(shown, labels.tolist(), (5 / 1.5, -3 / 1.5), 1.5)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted[:, : found.shape[1]], atol=1e-4)
    assert (wanted[:, found.shape[1] :] == -1).all()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    table, chips = dataset(tmp_path_factory.mktemp("images"), 12)
    rings = [[np.asarray([x1, y1, x2, y1, x2, y2, x1, y2])] for x1, y1, x2, y2 in table.boxes_xyxy]
    return replace(table, masks=masks_of(rings)), chips


def batches_of(made, outlines, workers=0):
    config = LoaderConfig(batch_size=4, workers=workers, shuffle_chips=8)
    return list(ChipLoader(*made, config, LIVELY, seed=3, epoch=1, outlines=outlines))


def test_outlines_stay_with_their_boxes(made):
    seen = 0
    for batch in batches_of(made, True):
        assert batch.polygons.shape[:2] == batch.boxes.shape[:2]
        assert batch.polygons.dtype == torch.float32
        for i in range(len(batch)):
            height, width = batch.valid_hw[i].tolist()
            for box, row, label, state in zip(
                batch.boxes[i], batch.polygons[i], batch.labels[i], batch.state[i], strict=True
            ):
                if state in (-1, 2):
                    assert row[1] == 0
                    continue
                assert row[:3].tolist() == [label, 1, 8]
                points = row[3:11].view(4, 2).clamp(min=0).minimum(torch.tensor([width, height]))
                torch.testing.assert_close(torch.cat([points.amin(0), points.amax(0)]), box, atol=1e-3, rtol=0)
                seen += 1
    assert seen > 20


def test_without_them_nothing_changes_and_workers_do_not_matter(made):
    plain, outlined = batches_of(made, False), batches_of(made, True)
    for one, other in zip(plain, outlined, strict=True):
        assert one.polygons is None
        assert same(one, replace(other, polygons=None))
    for one, other in zip(outlined, batches_of(made, True, workers=2), strict=True):
        assert same(one, other)
    table, chips = made
    assert all(batch.polygons is None for batch in batches_of((replace(table, masks=None), chips), True))


def test_chips_without_objects(made):
    table, _ = made
    empty = int(np.flatnonzero(np.diff(table.offsets) == 0)[0])
    chips = chips_of(table, [(empty, 1.0, (0, 0))])
    (batch,) = ChipLoader(table, chips, LoaderConfig(batch_size=1, workers=0), LIVELY, seed=0, epoch=0, outlines=True)
    assert batch.polygons.shape[:2] == (1, 0)
