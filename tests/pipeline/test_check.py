"""What a check leaves: JSON, a page with pictures, and a repaired dataset in which nothing wrong is left."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import layouts
from rectangle_set import SIZE, make_set
from sniper.checks.config import CheckConfig
from sniper.checks.findings import Kind
from sniper.data.source import load_dataset
from sniper.errors import DataError, StorageError
from sniper.pipeline.check import check

FEW = CheckConfig(min_objects=1)


@pytest.fixture
def spoiled(tmp_path: Path) -> tuple[Path, Path]:
    """A train and a val part with a defect of nearly every kind."""
    train, val = make_set(tmp_path / "train", images=8, seed=1), make_set(tmp_path / "val", images=4, seed=2)
    images = tmp_path / "train" / "images"
    (images / "0.png").write_bytes((images / "0.png").read_bytes()[:3000])
    Image.new("RGB", (SIZE[0] * 2, SIZE[1])).save(images / "1.png")
    (images / "2.png").write_bytes((tmp_path / "val" / "images" / "0.png").read_bytes())
    (images / "4.png").write_bytes((images / "3.png").read_bytes())
    document = json.loads(train.read_text())
    one = next(a for a in document["annotations"] if a["image_id"] == 105)
    document["annotations"] += [
        one | {"id": 9000},
        one | {"id": 9001, "bbox": [500, 500, 9, 9]},
        one | {"id": 9002, "bbox": [50, 50, 0, 9]},
        one | {"id": 9003, "bbox": [150, 100, 20, 30]},
        one | {"id": 9004, "bbox": [141, 5, 2, 2]},
    ]
    train.write_text(json.dumps(document))
    return train, val


def test_a_repaired_dataset_has_nothing_wrong(spoiled: tuple[Path, Path], tmp_path: Path) -> None:
    report = check(spoiled, fix=tmp_path / "fixed", config=FEW)
    assert not report.is_sound
    assert {row.kind for row in report.rows()} == {
        Kind.UNREADABLE_IMAGE, Kind.SIZE_DIFFERS, Kind.IN_TWO_SPLITS, Kind.SAME_IMAGE, Kind.OUTSIDE, Kind.BROKEN_BOX,
        Kind.CLIPPED, Kind.TINY, Kind.DUPLICATE_BOX,
    }  # fmt: skip
    files = list(report.repaired)
    assert [file.name for file in files] == ["set.json", "set-2.json"]
    assert report.repaired[files[0]] == [
        "1 images left out: unreadable image",
        "1 images left out: size differs",
        "1 images left out: image given twice",
        "1 images left out: image in two datasets",
        "3 boxes clipped to their image, or dropped where nothing is inside",
        "1 objects that were drawn twice kept once",
    ]
    assert report.repaired[files[1]] == []
    again = check(files, config=FEW)
    assert {row.kind for row in again.rows()} == {Kind.TINY}
    train = load_dataset(files[0])
    assert [Path(name).name for name in train.file_names] == ["3.png", "5.png", "6.png", "7.png"]
    assert train.check().image_path(0).is_file()
    np.testing.assert_array_equal(load_dataset(files[1]).boxes_xyxy, load_dataset(spoiled[1]).boxes_xyxy)


def test_the_page_shows_the_worst_and_needs_nothing_else(spoiled: tuple[Path, Path], tmp_path: Path) -> None:
    report = check(spoiled, output=tmp_path / "out", config=FEW)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"check.json", "index.html"}
    told = json.loads((tmp_path / "out" / "check.json").read_text())
    assert not told["sound"]
    assert sum(told["counts"].values()) == len(told["findings"]) == len(report.findings)
    page = (tmp_path / "out" / "index.html").read_text()
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)
    assert page.count("<img") == 7, "all kinds but the two that cannot be seen"
    for row in report.rows():
        assert f"{row.kind.value[1:]}: " in page
    assert "0.png cannot be decoded" in page


def test_a_sound_dataset_has_a_short_page(tmp_path: Path) -> None:
    data = make_set(tmp_path / "set")
    assert check(data, output=tmp_path / "out", config=FEW).is_sound
    assert "Nothing is wrong or suspicious." in (tmp_path / "out" / "index.html").read_text()
    with pytest.raises(DataError, match="none is not there"):
        check(tmp_path / "none")
    with pytest.raises(StorageError, match="out exists and is not empty"):
        check(data, fix=tmp_path / "out")


def test_threads_do_not_change_what_is_found(spoiled: tuple[Path, Path]) -> None:
    done: list[int] = []
    one = check(spoiled, threads=1, config=FEW, on_progress=done.append)
    assert sum(done) == 12
    assert check(spoiled, threads=4, config=FEW).as_dict() == one.as_dict()


def test_the_verb_says_what_is_wrong_and_ends_with_1(sniper, spoiled: tuple[Path, Path], tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = sniper("check", *spoiled, "--fix", "fixed")
    assert done.code == 1
    assert (tmp_path / "runs" / "check" / "check" / "check.json").is_file()
    assert f"box outside the image, e.g. {tmp_path / 'train' / 'images' / '5.png'}: a box outside" in done.out
    assert "something is wrong; all findings: runs/check/check/index.html" in done.out
    again = sniper("check", "fixed", "--no-open", "-o", "again")
    assert (again.code, again.lines) == (0, [])
    assert "nothing is wrong" in again.out
    assert "rare class" in again.out
    missing = sniper("check", "none.json")
    assert missing.code == 2
    assert missing.lines[-1].startswith("error: none.json is not there")


def test_the_verbs_take_where_images_and_which_classes(sniper, tmp_path: Path) -> None:
    data = make_set(tmp_path / "set")
    (tmp_path / "set" / "images").rename(tmp_path / "elsewhere")
    lost = sniper("check", data, "-o", tmp_path / "lost")
    assert lost.code == 1
    assert "unreadable image" in lost.out
    chosen = "--images", tmp_path / "elsewhere", "--classes", "red,blue", "--format", "coco"
    found = sniper("check", data, *chosen, "-o", tmp_path / "found")
    assert found.code == 0, found.out
    told = json.loads((tmp_path / "found" / "check.json").read_text())
    assert list(told["datasets"][0]["classes"]) == ["red", "blue"]
    done = sniper("convert", data, *chosen, "--to", "yolo", "-o", tmp_path / "out")
    assert done.code == 0, done.lines
    assert load_dataset(tmp_path / "out" / "data.yaml", "train").class_names == ("red", "blue")
    wrong = sniper("convert", data, "--format", "xml", "--to", "yolo", "-o", tmp_path / "no")
    assert wrong.lines[-1].startswith("error: --format takes coco, yolo, voc, openimages, wider, imagenet, got 'xml'")


@pytest.mark.parametrize("name", ["kangaroo", "raccoon", "playing_cards", "ultralytics"])
def test_all_parts_of_a_dataset_are_checked_as_people_have_it(tmp_path: Path, name: str) -> None:
    parts = {"playing_cards": ["train", "test"], "ultralytics": ["train", "val"]}
    data = getattr(layouts, name)(tmp_path / name)
    report = check(data, config=FEW)
    assert report.findings == []
    expected = [f"{data} ({part})" for part in parts[name]] if name in parts else [str(data)]
    assert [checked.name for checked in report.datasets] == expected
    assert all(checked.table is not None and len(checked.table) for checked in report.datasets)
