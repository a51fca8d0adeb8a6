"""The coverage report against numbers counted by hand, and its warnings."""

import json
from pathlib import Path

import numpy as np
import pytest

from sniper.auto_levels import derive_pyramid
from sniper.chips.config import ChipConfig
from sniper.chips.stats import coverage
from sniper.data.building import ObjectRows, build_table
from sniper.data.flags import ObjectFlag, flags_where
from sniper.data.table import AnnotationTable
from sniper.pyramid import Pyramid

PYRAMID = Pyramid.model_validate(
    {
        "chip_px": 512,
        "levels": [
            {"scale": 2.0, "train_range_px": [0, 40]},
            {"long_px": 512, "train_range_px": [30, 200]},
        ],
    }
)


def _table(sizes_wh: list, objects: list, crowd: list[bool] | None = None) -> AnnotationTable:
    """Images of the sizes, objects as (image, x, y, width, height)."""
    rows = np.array(objects, np.float64).reshape(-1, 5)
    boxes = rows[:, 1:].copy()
    boxes[:, 2:] += boxes[:, :2]
    return build_table(
        ObjectRows(
            rows[:, 0].astype(np.int64),
            boxes,
            np.zeros(len(rows), np.int32),
            flags=None if crowd is None else flags_where(np.array(crowd), ObjectFlag.CROWD),
        ),
        source="by hand",
        root=Path("nowhere"),
        file_names=[f"{k}.jpg" for k in range(len(sizes_wh))],
        image_ids=None,
        sizes_wh=np.array(sizes_wh),
        class_names=["thing"],
    )


def test_a_table_counted_by_hand() -> None:
    table = _table(
        [[1000, 500], [1000, 500], [200, 100]],
        [
            [0, 10, 10, 20, 20],  # fine level only
            [0, 900, 400, 35, 35],  # both levels; far from the first: a chip of its own at the fine one
            [0, 300, 100, 100, 100],  # coarse level only
            [0, 0, 0, 300, 300],  # too large for either range
            [2, 10, 10, 1.5, 1.5],  # a speck
            [0, 0, 0, 500, 400],  # crowd
        ],
        [False] * 5 + [True],
    )
    report = coverage(table, PYRAMID, ChipConfig())
    assert (report.images, report.objects, report.ignored, report.chip_px) == (3, 5, 1, 512)
    assert report.valid_in == (2 / 5, 2 / 5, 1 / 5)
    assert [level.valid_share for level in report.levels] == [2 / 5, 2 / 5]
    assert [level.chips for level in report.levels] == [2, 1]
    assert [level.scale for level in report.levels] == ["x 2", "long 512 px"]
    assert report.missed.tolist() == [300]
    assert (report.tiny, report.thin) == (1, 0)
    assert report.covered == 3 / 4
    assert report.chips == {"positive": 3, "background": 1}, "one random window in the image without objects"
    assert report.pixels == {
        "chips": 4 * 512 * 512,
        "full pyramid": 2 * (2000 * 1000 + 512 * 256) + 400 * 200 + 512 * 256,
        "one 800 x 1333 image": 3 * 1333 * 667,
        # 409 px from tile to tile: 1000 px take 3, 500 px one; scaled twice 2000 px take 5 and 1000 px 3.
        "uniform tiles": (3 + 3 + 1) * 512 * 512,
        "uniform tiles, finest scale": (15 + 15 + 1) * 512 * 512,
    }


def test_tables_and_plain_values_are_consistent() -> None:
    table = _table([[1000, 500]], [[0, 10, 10, 20, 20], [0, 300, 100, 100, 100]])
    report = coverage(table, PYRAMID, ChipConfig())
    for title, columns, rows in report.tables():
        assert title
        assert rows
        assert all(len(row) == len(columns) for row in rows)
        assert all(isinstance(cell, str) for row in rows for cell in row)
    levels, shares, pixels = report.tables()
    assert levels[2] == [["x 2", "0 to 40", "50.0%", "1", "1.00"], ["long 512 px", "30 to 200", "50.0%", "1", "1.00"]]
    assert shares[0] == "2 objects in 1 images"
    assert [row[1] for row in shares[2]] == ["0.0%", "100.0%", "0.0%"]
    assert pixels[2][0] == ["chips", "0.5", "1.00 x"]
    plain = json.loads(json.dumps(report.as_dict()))
    assert plain["covered"] == 1
    assert plain["chips"] == {"positive": 2}
    assert report.warnings() == []


@pytest.mark.parametrize("sizes", [[[64, 48]], [[1, 1], [3000, 10]]])
def test_a_dataset_without_objects(sizes: list) -> None:
    report = coverage(_table(sizes, []), PYRAMID, ChipConfig())
    assert (report.objects, report.covered, report.valid_in) == (0, 1, (0, 0, 0))
    assert report.chips == {"background": len(sizes)}
    assert report.warnings() == []
    assert report.tables()[0][2][0] == ["x 2", "0 to 40", "0.0%", "0", "0.00"]
    nothing = coverage(_table(sizes, []), PYRAMID, ChipConfig(background_per_image=0))
    assert nothing.pixels["chips"] == 0
    assert nothing.tables()


def test_ranges_that_never_fit_are_warned_of_with_the_fix() -> None:
    table = _table([[4000, 3000]] * 2, [[0, 10 * k, 500, 400, 300] for k in range(9)] + [[1, 5, 5, 20, 20]])
    report = coverage(table, PYRAMID, ChipConfig())
    (warning,) = report.warnings()
    assert warning.startswith("90.0% of the objects (sizes 346 to 346 px) are valid at no level")
    assert "set pyramid.levels to auto, or widen train_range_px" in warning
    boxes = table.boxes_xyxy
    better = derive_pyramid(boxes[:, 2:] - boxes[:, :2], table.image_rows_of_objects(), table.sizes_wh, object_px=64.0)
    assert coverage(table, better, ChipConfig()).warnings() == [], "the fix fixes it"


def test_thin_objects_are_warned_of_with_their_own_fix() -> None:
    table = _table([[1000, 500]], [[0, 10, 10, 1, 100], [0, 10, 10, 30, 30], [0, 0, 0, 400, 400]])
    report = coverage(table, PYRAMID, ChipConfig())
    assert (report.thin, report.missed.tolist()) == (1, [10, 400])
    unfit, thin = report.warnings()
    assert unfit.startswith("33.3% of the objects (sizes 400 to 400 px)")
    assert thin.startswith("33.3% of the objects have a side below 2 px")
    assert "chips.min_side_px" in thin
    assert len(coverage(table, PYRAMID, ChipConfig(min_side_px=0.5)).warnings()) == 1
