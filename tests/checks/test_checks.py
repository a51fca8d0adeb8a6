"""One defect of each kind, planted in a sound dataset, is found in its file, and nothing else is."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rectangle_set import SIZE, make_set
from sniper.checks.config import CheckConfig
from sniper.checks.findings import Finding, Kind
from sniper.checks.report import CheckReport
from sniper.pipeline.check import check

FEW = CheckConfig(min_objects=1)
Document = dict


def _kinds(report: CheckReport) -> dict[str, list[str]]:
    """Names of files by kind."""
    return {row.kind.value: [Path(report.file_of(f)).name for f in report.worst(row.kind)] for row in report.rows()}


def _edit(data: Path, change: Callable[[Document], None]) -> Path:
    document = json.loads(data.read_text())
    change(document)
    data.write_text(json.dumps(document))
    return data


@pytest.mark.parametrize("form", ["coco", "yolo", "voc"])
def test_a_sound_dataset_has_no_findings(tmp_path: Path, form) -> None:
    data = make_set(tmp_path / "set", form, images=12)
    if form == "yolo":
        data.write_text(data.read_text().replace("val: images\n", ""))
    report = check(data, config=FEW)
    assert _kinds(report) == {}
    assert report.is_sound
    assert report.as_dict()["datasets"][0]["images"] == 12


def _box(number: int, box: list[float], category: int = 10) -> Callable[[Document], None]:
    def add(document: Document) -> None:
        entry = {"id": 9000 + number, "image_id": 102, "category_id": category, "bbox": box, "iscrowd": 0, "area": 9}
        document["annotations"].append(entry)

    return add


def _twice(document: Document) -> None:
    one = next(a for a in document["annotations"] if a["image_id"] == 102)
    document["annotations"].append(one | {"id": 9000})


def _shares(document: Document) -> None:
    for one in document["annotations"]:
        one["bbox"] = [value / 160 for value in one["bbox"]]


BOXES = {
    "outside": (_box(0, [200, 10, 20, 20]), {Kind.OUTSIDE}),
    "inverted": (_box(0, [50, 50, -20, 20]), {Kind.BROKEN_BOX}),
    "empty": (_box(0, [50, 50, 0, 20]), {Kind.BROKEN_BOX}),
    "over the edge": (_box(0, [150, 100, 20, 30]), {Kind.CLIPPED}),
    "tiny": (_box(0, [140, 110, 2, 9]), {Kind.TINY}),
    "huge": (_box(0, [0, 0, 160, 120]), {Kind.HUGE}),
    "twice": (_twice, {Kind.DUPLICATE_BOX}),
    "rare": (lambda document: document["categories"].append({"id": 99, "name": "never"}), {Kind.RARE_CLASS}),
    "shares": (_shares, {Kind.NOT_IN_PIXELS, Kind.TINY}),
    "no objects": (lambda document: document["annotations"].clear(), {Kind.NO_OBJECTS}),
}


@pytest.mark.parametrize("name", list(BOXES))
def test_a_wrong_annotation_is_found(tmp_path: Path, name: str) -> None:
    change, kinds = BOXES[name]
    report = check(_edit(make_set(tmp_path / "set"), change), open_images=False, config=FEW)
    assert {row.kind for row in report.rows()} == kinds
    assert report.is_sound == (not any(kind.is_wrong for kind in kinds))
    if name not in ("rare", "shares", "no objects"):
        (finding,) = report.findings
        assert Path(report.file_of(finding)).name == "2.png"
        assert finding.annotation_ids is not None
        assert finding.annotation_ids.tolist() == [9000]
        (plain,) = report.as_dict()["findings"]
        assert plain["image_id"] == 102
        assert plain["annotation_ids"] == [9000]


def test_an_object_of_two_classes_and_a_crowd(tmp_path: Path) -> None:
    def change(document: Document) -> None:
        one = next(a for a in document["annotations"] if a["image_id"] == 103)
        other = next(c["id"] for c in document["categories"] if c["id"] != one["category_id"])
        document["annotations"].append(one | {"id": 9000, "category_id": other})
        document["annotations"].append(one | {"id": 9001, "iscrowd": 1})

    report = check(_edit(make_set(tmp_path / "set"), change), config=CheckConfig(min_objects=1, crowded=5))
    assert _kinds(report) == {"box drawn twice": ["3.png"], "crowded image": ["3.png"]}
    assert report.worst(Kind.DUPLICATE_BOX)[0].detail == "an object drawn as two classes"


def test_unreadable_images_and_sizes(tmp_path: Path) -> None:
    data = make_set(tmp_path / "set", images=7)
    images = data.parent / "images"
    (images / "0.png").write_bytes((images / "0.png").read_bytes()[:2000])
    (images / "1.png").unlink()
    Image.new("RGB", (SIZE[0] * 2, SIZE[1])).save(images / "2.png")
    Image.fromarray(np.full((SIZE[1], SIZE[0], 3), 7, np.uint8)).save(images / "3.png")
    (images / "4.png").write_bytes((images / "5.png").read_bytes())
    report = check(data, config=FEW)
    assert _kinds(report) == {
        "unreadable image": ["0.png", "1.png"],
        "size differs": ["2.png"],
        "value range": ["3.png"],
        "image given twice": ["5.png"],
    }
    assert "is 320x120 px, but annotated as 160x120 px" in report.sentence(report.worst(Kind.SIZE_DIFFERS)[0])
    assert report.sentence(report.worst(Kind.SAME_IMAGE)[0]).endswith(f"shows the same as {images / '4.png'} of {data}")


def test_a_yolo_image_that_is_left_out_is_told(tmp_path: Path) -> None:
    """Its size would have to be read from the file, so reading leaves it out."""
    data = make_set(tmp_path / "set", "yolo", images=4)
    data.write_text(data.read_text().replace("val: images\n", ""))
    (tmp_path / "set" / "images" / "1.png").write_bytes(b"no image")
    report = check(data, config=FEW)
    (finding,) = report.findings
    assert finding.kind is Kind.UNREADABLE_IMAGE
    assert "1.png is not an image" in report.sentence(finding)
    assert not report.is_sound


def test_broken_annotations_are_a_finding_and_the_others_are_checked(tmp_path: Path) -> None:
    sound, broken = make_set(tmp_path / "a", seed=1), make_set(tmp_path / "b", seed=2)
    broken.write_text(broken.read_text()[:-40])
    report = check([sound, broken], config=FEW)
    assert [row.kind for row in report.rows()] == [Kind.UNREADABLE_ANNOTATIONS]
    assert report.datasets[0].table is not None
    assert "is not JSON" in report.findings[0].detail or "cut off" in report.findings[0].detail
    assert not report.is_sound


def test_an_image_in_two_datasets_is_wrong_also_when_it_was_saved_anew(tmp_path: Path) -> None:
    train, val = make_set(tmp_path / "train", seed=1), make_set(tmp_path / "val", seed=2)
    photo = Image.effect_mandelbrot(SIZE, (-2, -1.5, 1, 1.5), 60).convert("RGB")
    photo.save(tmp_path / "train" / "images" / "1.png")
    photo.save(tmp_path / "again.jpg", quality=70)
    Image.open(tmp_path / "again.jpg").save(tmp_path / "val" / "images" / "3.png")
    (report,) = [check([train, val], config=FEW)]
    (finding,) = report.findings
    assert finding.kind is Kind.IN_TWO_SPLITS
    assert (finding.dataset, finding.image_row, finding.twin) == (1, 3, (0, 1))
    assert finding.detail == "looks the same as"


def test_the_same_file_is_found_without_opening_it(tmp_path: Path) -> None:
    data = make_set(tmp_path / "set")
    copy = data.with_name("val.json")
    copy.write_text(data.read_text())
    report = check([data, copy], open_images=False, config=FEW)
    assert _kinds(report) == {"image in two datasets": [f"{n}.png" for n in range(6)]}
    assert isinstance(report.findings[0], Finding)


@pytest.mark.parametrize("shift", [4, 7])  # 12 bits, and 15
def test_values_of_16_bit_files_are_seen_by_the_range_of_their_dataset(tmp_path: Path, shift: int) -> None:
    data = make_set(tmp_path / "set", images=6)
    files = sorted((data.parent / "images").iterdir())
    for file in files:
        grey = np.array(Image.open(file).convert("L")).astype(np.uint16)
        grey[0, :2] = 0, 255
        Image.fromarray(grey << shift).save(file)
    assert _kinds(check(data, config=FEW)) == {}
    dark = Image.fromarray(np.array(Image.open(files[2])) >> 4)
    dark.save(files[2])
    report = check(data, config=FEW)
    assert _kinds(report) == {"value range": [files[2].name]}
    assert report.findings[0].detail == "values from 0 to 15 only, of 0 to 255"
