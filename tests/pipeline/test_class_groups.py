"""Classes that look alike share a super-class."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from facts import facts
from sniper.data.building import ObjectRows, build_table
from sniper.data.table import AnnotationTable
from sniper.data.writers.coco import write_coco
from sniper.demo.assets import imagenet_mobilenet_v2
from sniper.detectors.rfcn3k.clusters import read_clusters
from sniper.errors import DataError
from sniper.pipeline.class_groups import group_by_looks

NAMES = ("brick", "rug", "tile", "cloth", "clay")
LOOKS = {"brick": "plain", "tile": "plain", "clay": "plain", "rug": "striped", "cloth": "striped"}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> AnnotationTable:
    """Plain things in shades of red, and striped ones, three in each of five images."""
    root, random = tmp_path_factory.mktemp("looks"), np.random.default_rng(0)
    boxes, labels, rows = [], [], []
    for image in range(5):
        pixels = np.full((96, 288, 3), 120, np.uint8)
        for place in range(3):
            label = (3 * image + place) % len(NAMES)
            size = int(random.integers(40, 70))
            x, y = 96 * place + 10, 12
            shade = int(random.integers(150, 250)), 30, 30
            stripes = np.where(np.arange(size)[:, None] % 8 < 4, 250, 10)[..., None]
            pixels[y : y + size, x : x + size] = stripes if LOOKS[NAMES[label]] == "striped" else shade
            boxes.append((x, y, x + size, y + size))
            labels.append(label)
            rows.append(image)
        Image.fromarray(pixels).save(root / f"{image}.png")
    return build_table(
        ObjectRows(np.array(rows), np.array(boxes, np.float64), np.array(labels, np.int32)),
        source=root,
        root=root,
        file_names=[f"{image}.png" for image in range(5)],
        image_ids=None,
        sizes_wh=np.full((5, 2), (288, 96)),
        class_names=NAMES,
    )


def test_plain_and_striped_things_are_two_groups(
    table: AnnotationTable, tmp_path: Path, sniper: Callable[..., Any]
) -> None:
    weights, file = str(imagenet_mobilenet_v2()), tmp_path / "clusters.txt"
    told: list[int] = []
    groups = group_by_looks(table, 2, feature_weights=weights, on_progress=told.append)
    assert groups == {name: int(LOOKS[name] == "striped") for name in NAMES}
    assert sum(told) == 5
    write_coco(table, tmp_path / "data.json", list(table.file_names))
    options = ["--super-classes", 2, "--feature-weights", weights, "--images", table.root, "-o", file]
    done = sniper("classes", "group", tmp_path / "data.json", *options)
    assert done.code == 0, done
    assert "rug, cloth" in done.out
    assert read_clusters(file, NAMES, 2) == list(groups.values())


def test_more_groups_than_classes_and_classes_without_objects_are_refused(table: AnnotationTable) -> None:
    with pytest.raises(DataError, match=facts("5 classes", "not 6")):
        group_by_looks(table, 6)
    more = table.with_classes((*NAMES, "glass"), missing="allow")
    with pytest.raises(DataError, match=facts("'glass'", "no object", "--classes")):
        group_by_looks(more, 2)
