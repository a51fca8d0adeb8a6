"""Any form of dataset into any other: what comes back, and what is told of the rest."""

import json
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from rectangle_set import make_set
from sniper.data.flags import ObjectFlag
from sniper.data.source import load_dataset
from sniper.data.table import AnnotationTable
from sniper.errors import DataError, RecipeError, StorageError
from sniper.pipeline.convert import convert

FORMS = ("coco", "yolo", "voc")
Form = Literal["coco", "yolo", "voc"]


def _objects(table: AnnotationTable) -> dict[str, list[tuple]]:
    """By image: class names and boxes in order."""
    found = {}
    for row in range(len(table)):
        part = table.objects(row)
        names = [table.class_names[label] for label in table.labels[part]]
        found[Path(table.file_name(row)).name] = list(zip(names, table.boxes_xyxy[part].round(3).tolist(), strict=True))
    return found


@pytest.mark.parametrize("given", FORMS)
@pytest.mark.parametrize("to", FORMS)
def test_boxes_and_classes_come_back(tmp_path: Path, given: Form, to: Form) -> None:
    data = make_set(tmp_path / "set", given)
    before = load_dataset(data)
    done = convert(data, to=to, output=tmp_path / "out", split=None if given != "yolo" else "train")
    after = load_dataset(done.data, "train" if to != "coco" else None)
    assert _objects(after) == _objects(before)
    assert (done.images, done.objects) == ({"train": 6}, {"train": 20})
    assert done.missing_images == 0
    assert all(after.image_path(row).is_file() for row in range(len(after)))
    # Written again in the first form, it is what it was.
    again = convert(done.data, to=given, output=tmp_path / "again", split="train" if to != "coco" else None, copy=True)
    back = load_dataset(again.data, "train" if given != "coco" else None)
    assert _objects(back) == _objects(before)
    assert not any(back.image_path(row).is_symlink() for row in range(len(back)))


@pytest.mark.parametrize("to", FORMS)
def test_films_are_not_divided(tmp_path: Path, to: Form) -> None:
    data = make_set(tmp_path / "set", images=6)
    document = json.loads(data.read_text())
    for number, image in enumerate(document["images"]):
        (tmp_path / "set" / "images" / image["file_name"]).rename(
            tmp_path / "set" / "images" / f"f{number // 2}_{number}.png"
        )
        image["file_name"] = f"f{number // 2}_{number}.png"
    data.write_text(json.dumps(document))
    done = convert(data, to=to, output=tmp_path / "out", split=0.6, group_by=r"^f(\d)")
    assert done.images == {"train": 4, "val": 2}
    films = {}
    for split in ("train", "val"):
        table = load_dataset(tmp_path / "out" / f"{split}.json") if to == "coco" else load_dataset(done.data, split)
        films[split] = {Path(name).name[1] for name in table.file_names}
        assert len(table) == done.images[split]
    assert not films["train"] & films["val"]
    with pytest.raises(DataError, match="is divided already, into train"):
        convert(done.folder, to="coco", output=tmp_path / "more", split=0.5)


def test_all_splits_are_converted_and_share_their_classes(tmp_path: Path) -> None:
    """A YOLO label is a place in one list of names, whichever file it comes from."""
    for name, classes in (("train", ("red", "blue")), ("val", ("blue", "green", "red"))):
        file = make_set(tmp_path / name, classes=classes, images=3)
        document = json.loads(file.read_text())
        for image in document["images"]:
            image["file_name"] = f"{name}/images/{image['file_name']}"
        (tmp_path / f"{name}.json").write_text(json.dumps(document))
        file.unlink()
    done = convert(tmp_path, to="yolo", output=tmp_path.parent / "yolo_out")
    assert done.images == {"train": 3, "val": 3}
    for split in done.images:
        table = load_dataset(done.data, split)
        assert table.class_names == ("red", "blue", "green")
        assert _objects(table) == _objects(load_dataset(tmp_path / f"{split}.json"))


def _with_masks(folder: Path) -> AnnotationTable:
    (folder / "images").mkdir(parents=True)
    Image.new("RGB", (100, 80)).save(folder / "images" / "a.png")
    ring, other = [10, 10, 30, 10, 30, 30.5, 10, 30.5], [40, 10, 50, 10, 50, 20]
    shapes = ([ring], [ring, other], {"size": [80, 100], "counts": [0, 8000]}, [])
    boxes = ([10, 10, 20, 20.5], [10, 10, 40, 20.5], [0, 0, 100, 80], [60, 60, 1, 1])
    annotations = [
        {
            "id": 7 + n,
            "image_id": 3,
            "category_id": 5,
            "bbox": box,
            "area": 5.5,
            "iscrowd": n == 2,
            "segmentation": shape,
        }
        for n, (box, shape) in enumerate(zip(boxes, shapes, strict=True))
    ]
    image = {"id": 3, "file_name": "images/a.png", "width": 100, "height": 80}
    document = {"images": [image], "categories": [{"id": 5, "name": "no"}], "annotations": annotations}
    (folder / "set.json").write_text(json.dumps(document))
    return load_dataset(folder / "set.json")


def test_coco_keeps_ids_areas_crowds_and_masks(tmp_path: Path) -> None:
    table = _with_masks(tmp_path / "set")
    done = convert(table, to="coco", output=tmp_path / "out")
    back = load_dataset(done.data)
    assert back.fingerprint() != table.fingerprint(), "the image has another relative name"
    for name in ("image_ids", "boxes_xyxy", "flags", "areas", "annotation_ids", "class_ids", "offsets"):
        np.testing.assert_array_equal(getattr(back, name), getattr(table, name))
    assert back.masks is not None
    assert table.masks is not None
    np.testing.assert_array_equal(back.masks.points_xy, table.masks.points_xy)
    assert back.masks.run_length(2) == table.masks.run_length(2)
    assert done.lost == []


def test_what_a_form_cannot_hold_is_told(tmp_path: Path) -> None:
    table = _with_masks(tmp_path / "set")
    yolo = convert(table, to="yolo", output=tmp_path / "yolo")
    assert load_dataset(yolo.data).num_objects == 3, "a crowd region would be learned as an object"
    ids = "ids of images, objects and classes"
    masks = "masks of 3 objects (--masks writes outlines)"
    assert yolo.lost == ["1 crowd or group-of regions, which are left out", masks, ids]
    outlines = convert(table, to="yolo", output=tmp_path / "outlines", masks=True)
    read = load_dataset(outlines.data)
    assert read.class_names == ("no",)
    assert read.masks is not None
    np.testing.assert_allclose(read.masks.polygons(0)[0], table.masks.polygons(0)[0], atol=1e-4)  # type: ignore[union-attr]
    assert any("all but one outline of 1 objects" in line for line in outlines.lost)
    voc = convert(table, to="voc", output=tmp_path / "voc")
    assert voc.lost == [
        "fractions of a pixel of 2 boxes, up to 0.5 px",
        "1 boxes of a single pixel, which readers take for empty",
        "that 1 crowd or group-of regions are regions; they are marked difficult",
        "masks of 3 objects",
        ids,
    ]
    flags = load_dataset(voc.folder).flags
    assert flags.tolist() == [0, 0, ObjectFlag.DIFFICULT]
    assert convert(load_dataset(voc.folder), to="coco", output=tmp_path / "c").lost == [
        "the mark difficult of 1 objects"
    ]


def test_missing_images_are_counted_and_names_never_clash(tmp_path: Path) -> None:
    images = [{"id": n, "file_name": f"{n}/a.png", "width": 9, "height": 9} for n in (1, 2)]
    (tmp_path / "1").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "1" / "a.png")
    boxes = [{"id": n, "image_id": n, "category_id": 1, "bbox": [n, 1, 3, 3]} for n in (1, 2)]
    document = {"images": images, "categories": [{"id": 1, "name": "x"}], "annotations": boxes}
    (tmp_path / "set.json").write_text(json.dumps(document))
    done = convert(tmp_path / "set.json", to="voc", output=tmp_path / "out")
    assert done.missing_images == 1
    back = load_dataset(tmp_path / "out")
    assert sorted(back.boxes_xyxy[:, 0].tolist()) == [1, 2]
    assert [Path(name).name for name in (tmp_path / "out" / "JPEGImages").iterdir()] == ["a.png"]


def test_what_is_refused(tmp_path: Path) -> None:
    data = make_set(tmp_path / "set", images=2)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(StorageError, match="exists and is not empty"):
        convert(data, to="coco", output=tmp_path / "full")
    with pytest.raises(RecipeError, match="--to takes coco, yolo or voc, got 'xml'"):
        convert(data, to="xml", output=tmp_path / "out")  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match=r"a share between 0 and 1.*got 80"):
        convert(data, to="coco", output=tmp_path / "out", split=80.0)
    with pytest.raises(RecipeError, match="give --split a share too"):
        convert(data, to="coco", output=tmp_path / "out", group_by="a")
    assert not (tmp_path / "out").exists()


def test_the_verb_tells_what_it_wrote(sniper, tmp_path: Path) -> None:
    data = make_set(tmp_path / "set")
    done = sniper("convert", data, "--to", "yolo", "-o", tmp_path / "out", "--split", "0.5")
    assert done.code == 0, done.lines
    assert "train: 3 images" in done.out
    assert "val: 3 images" in done.out
    assert "yolo does not hold: ids of images, objects and classes" in done.out
    assert done.out.endswith(f"dataset: {tmp_path / 'out' / 'data.yaml'}\n")
    named = sniper("convert", tmp_path / "out", "--to", "coco", "-o", tmp_path / "val", "--split", "val")
    assert named.code == 0, named.lines
    assert len(load_dataset(tmp_path / "val" / "val.json")) == 3
    assert sniper("convert", data, "--to", "pascal", "-o", tmp_path / "x").lines == [
        "error: --to takes coco, yolo or voc, got 'pascal'"
    ]
