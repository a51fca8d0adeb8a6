"""Anchors: the sizes and the order of the original, exactly; cells are centred."""

import numpy as np
import pytest
import torch

from sniper.nn.anchors import Anchors, base_anchors
from sniper.nn.config import AnchorConfig


@pytest.mark.parametrize(("rounding", "name"), [("half_even", "python"), ("half_up", "cpp")])
def test_base_anchors_are_the_original_ones(golden, rounding, name):
    configs = golden.cases("ops/anchors.npz")
    assert configs
    for config in configs:
        recorded = golden.case("ops/anchors.npz", config)
        inclusive = recorded[name]
        scales, ratios = (tuple(map(float, recorded[part])) for part in ("scales", "ratios"))
        ours = base_anchors(int(recorded["stride"]), scales, ratios, rounding)
        np.testing.assert_array_equal(ours.numpy(), inclusive + np.array([0, 0, 1, 1]), err_msg=config)


def test_exact_anchors_keep_area_and_ratio():
    boxes = base_anchors(16, (1.0, 3.5), (0.5, 1.0, 2.0))
    size = boxes[:, 2:] - boxes[:, :2]
    torch.testing.assert_close(size.prod(1).sqrt(), torch.tensor([16.0, 56.0] * 3))
    torch.testing.assert_close(size[:, 1] / size[:, 0], torch.tensor([0.5, 0.5, 1, 1, 2, 2]))
    torch.testing.assert_close((boxes[:, :2] + boxes[:, 2:]) / 2, torch.full((6, 2), 8.0))


def test_grid_runs_row_by_row_and_is_centred_on_cells():
    anchors = Anchors(16, AnchorConfig(scales=(1.0, 2.0), ratios=(1.0,)))
    grid = anchors((2, 3)).view(2, 3, 2, 4)
    centres = (grid[..., :2] + grid[..., 2:]) / 2
    for row in range(2):
        for column in range(3):
            assert centres[row, column].tolist() == [[column * 16 + 8, row * 16 + 8]] * 2
    assert grid[0, 0, 0].tolist() == [0, 0, 16, 16]


def test_number_inside_the_original_border():
    """Of the 21,504 anchors of a 512 px chip, 13,388 lie within 32 px around it."""
    anchors = Anchors(16, AnchorConfig(scales=(2, 4, 7, 10, 13, 16, 24), rounding="half_even"))((32, 32))
    inside = (anchors[:, :2] >= -32).all(1) & (anchors[:, 2:] <= 544).all(1)
    assert (len(anchors), int(inside.sum())) == (21504, 13388)
