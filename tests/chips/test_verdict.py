"""Chips, tiles or whole images: the rule on made facts."""

import numpy as np
import pytest

from sniper.chips.verdict import Facts, needed_long_px, verdict, whole_long_px

# HIT-UAV at one level of 2.1 x: chips 36.6 AP, whole images of 1000 px 29.6, tiles at 1 x 30.3.
DRONE = Facts(
    one_level=True,
    chip_px=512,
    level_long_px=1344,
    needed_long_px=1246,
    chip_share=0.45,
    seen_by_chips=1.0,
    seen_by_whole=0.99,
    chips_megapixels=650,
    whole_megapixels=798,
)

CASES = {
    "few and far between": (DRONE, "chips", None, "45%"),
    "whole images too large": (DRONE._replace(needed_long_px=1957, chip_share=0.8), "chips", None, "1957 px"),
    "too large, and objects everywhere": (DRONE._replace(needed_long_px=1957, chip_share=1.2), "tiles", None, "tiles"),
    "everywhere, but at several levels": (
        DRONE._replace(needed_long_px=1957, chip_share=1.2, one_level=False), "chips", None, "1957 px",
    ),
    "hardly larger than a chip": (DRONE._replace(level_long_px=760), "whole", 768, "whole images at 768 px"),
    "a little larger than that": (DRONE._replace(level_long_px=770), "chips", None, "chips"),
    "small, but of many sizes": (DRONE._replace(level_long_px=480, one_level=False), "chips", None, "chips"),
    "dense": (DRONE._replace(chip_share=0.7), "whole", 1248, "simpler"),
    "dense, and whole images cheaper": (
        DRONE._replace(chip_share=0.7, chips_megapixels=900), "whole", 1248, "cheaper: use sampler.method: whole",
    ),
    "dense, of too many sizes": (DRONE._replace(chip_share=0.7, seen_by_whole=0.9), "chips", None, "90%"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_verdict(name: str) -> None:
    facts, method, long_px, part = CASES[name]
    decided = verdict(facts)
    assert (decided.method, decided.long_px) == (method, long_px)
    assert part in decided.sentence


def test_nine_in_ten_objects_span_one_and_a_half_cells_in_images_of_the_needed_side() -> None:
    sizes, long_sides = np.arange(10.0, 110.0), np.full(100, 640)
    needed = needed_long_px(sizes, long_sides, stride=16)
    assert np.mean(sizes * needed / 640 >= 24) == 0.9
    # An object counts by its share of its image, however large that is.
    assert needed_long_px(np.r_[sizes, 2 * sizes], np.r_[long_sides, 2 * long_sides], 16) == pytest.approx(needed, 0.02)
    assert needed_long_px(sizes, long_sides, stride=8) == pytest.approx(needed / 2)


def test_whole_images_are_no_smaller_than_a_chip() -> None:
    assert whole_long_px(False, 512, 300, 187) == 512
    assert whole_long_px(True, 512, 300, 187) == 320, "as chips show them"
