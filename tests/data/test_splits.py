"""The parts of a dataset, by what its files are called."""

from pathlib import Path

import pytest

from sniper.data.splits import parts_of

PLACES = {
    "yaml": (["data.yaml"], [("data.yaml", "train"), ("data.yaml", "valid")]),
    "voc": (["ImageSets/Main/val.txt", "ImageSets/Main/train.txt", "ImageSets/Main/aeroplane_val.txt"],
            [("", "train"), ("", "val")]),
    "coco": (["annotations/instances_val2017.json", "annotations/instances_train2017.json",
              "annotations/person_keypoints_val2017.json"],
             [("annotations/instances_train2017.json", None), ("annotations/instances_val2017.json", None)]),
    "openimages": (["validation-annotations-bbox.csv", "oidv6-train-annotations-bbox.csv", "hierarchy.json"],
                   [("", "train"), ("", "validation")]),
    "openimages, one": (["bbox.csv", "hierarchy.json"], [("", None)]),
    "any names": (["learn.json", "test.json"], [("learn.json", None), ("test.json", None)]),
    "beside images": (["valid/_annotations.coco.json", "train/_annotations.coco.json"],
                      [("train/_annotations.coco.json", None), ("valid/_annotations.coco.json", None)]),
    "folders": (["images/test/a.jpg", "images/train/b.jpg", "labels/train/b.txt"], [("", "train"), ("", "test")]),
    "one": (["images/b.jpg", "labels/b.txt"], [("", None)]),
}  # fmt: skip


@pytest.mark.parametrize("name", list(PLACES))
def test_parts(tmp_path: Path, name: str) -> None:
    files, expected = PLACES[name]
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("{}" if file.endswith(".json") else "train: a\nvalid: b\nnames: [x]\n")
    (tmp_path / "results.json").write_text("[]")
    given = tmp_path / "data.yaml" if name == "yaml" else tmp_path
    assert [(part.path, part.split) for part in parts_of(given)] == [(tmp_path / p, split) for p, split in expected]
