"""Finding the form of a dataset from its path."""

import json

import numpy as np
import pytest
from PIL import Image

from facts import facts
from sniper.data.building import ObjectRows, build_table
from sniper.data.source import load_dataset
from sniper.errors import DataError

COCO = {"images": [{"id": 1, "file_name": "a.jpg", "width": 9, "height": 9}], "categories": [], "annotations": []}


@pytest.mark.parametrize(
    ("place", "split", "form", "images"),
    [
        ("coco_subset", "train", None, 192),
        ("coco_subset", "train2017", None, 192),
        ("coco_subset", "val", None, 164),
        ("coco_subset/annotations/instances_val2017.json", None, None, 164),
        ("aerial_cars_kit_ais", "train", None, 45),
        ("aerial_cars_kit_ais", "test", None, 20),
        ("aerial_cars_kit_ais", None, "yolo", 65),
        ("bccd", None, None, 364),
        ("bccd", "test", None, 72),
        ("annotations_only/taco_annotations.json", None, None, 1500),
    ],
)
def test_real_sets(shared_data, place, split, form, images):
    table = load_dataset(shared_data / place, split, format=form).check()
    assert len(table) == images


def test_ambiguous_or_missing_splits(shared_data):
    with pytest.raises(DataError, match=facts("split", "instances_train2017.json")):
        load_dataset(shared_data / "coco_subset")
    with pytest.raises(DataError, match=facts("tra", "test.json", "train.json")):
        load_dataset(shared_data / "aerial_cars_kit_ais", "tra")
    with pytest.raises(DataError, match=facts("one file", "split")):
        load_dataset(shared_data / "aerial_cars_kit_ais" / "annotations" / "train.json", "train")
    with pytest.raises(DataError, match="not a COCO annotation file"):
        load_dataset(shared_data / "annotations_only" / "wider_face_val_boxes.json")


def test_unknown_places(tmp_path):
    with pytest.raises(DataError, match="is not there"):
        load_dataset(tmp_path / "none")
    with pytest.raises(DataError, match=facts("annotations/*.json")):
        load_dataset(tmp_path)
    (tmp_path / "a.txt").touch()
    with pytest.raises(DataError, match=facts("COCO", "json", "YOLO", "yaml", "OpenImages", "csv")):
        load_dataset(tmp_path / "a.txt")
    (tmp_path / "a.json").write_text(json.dumps(COCO))
    with pytest.raises(DataError, match=r"image folder .*none is not there"):
        load_dataset(tmp_path / "a.json", image_root=tmp_path / "none")
    with pytest.raises(DataError, match="has no annotation files"):
        load_dataset(tmp_path, format="voc")


def test_one_file_per_split_folder(tmp_path):
    for split in ("train", "valid"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "_annotations.coco.json").write_text(json.dumps(COCO))
        Image.new("RGB", (9, 9)).save(tmp_path / split / "a.jpg")
        assert load_dataset(tmp_path, split).image_path(0) == tmp_path / split / "a.jpg"
        assert load_dataset(tmp_path / split).image_path(0) == tmp_path / split / "a.jpg"


def test_only_file_needs_no_split(tmp_path):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "all.json").write_text(json.dumps(COCO))
    (tmp_path / "annotations" / "ids.json").write_text("[1]")
    assert len(load_dataset(tmp_path)) == 1
    assert len(load_dataset(str(tmp_path))) == 1


@pytest.mark.parametrize("layout", ["a.jpg a.txt", "images/a.jpg labels/a.txt", "images/a.jpg images/a.txt"])
def test_yolo_folders(tmp_path, layout):
    image, label = (tmp_path / name for name in layout.split())
    for path in (image, label):
        path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (9, 9)).save(image)
    label.write_text("0 0.5 0.5 0.5 0.5")
    (tmp_path / "classes.txt").write_text("x\n")
    assert load_dataset(tmp_path).num_objects == 1
    (tmp_path / "classes.txt").unlink()
    assert load_dataset(tmp_path, classes=["y"]).class_names == ("y",)
    (tmp_path / "data.yaml").write_text(f"train: {image.parent}\nnames: [z]\n")
    assert load_dataset(tmp_path).class_names == ("z",)


def test_voc_inside_its_kit(tmp_path):
    (tmp_path / "VOC2007" / "Annotations").mkdir(parents=True)
    page = "<annotation><filename>a.jpg</filename><size><width>5</width><height>5</height></size></annotation>"
    (tmp_path / "VOC2007" / "Annotations" / "a.xml").write_text(page)
    assert load_dataset(tmp_path).root == tmp_path / "VOC2007" / "JPEGImages"


def test_classes_choose_and_order(shared_data):
    whole = load_dataset(shared_data / "coco_subset", "val")
    pets = load_dataset(shared_data / "coco_subset", "val", classes=["dog", "cat"]).check()
    assert pets.class_names == ("dog", "cat")
    assert pets.class_ids.tolist() == [18, 17]
    assert pets.num_objects == np.isin(whole.class_ids[whole.labels], [17, 18]).sum()
    assert len(pets) == len(whole)
    with pytest.raises(DataError, match="did you mean 'person'"):
        load_dataset(shared_data / "coco_subset", "val", classes=["persons"])


def test_classes_that_a_set_lacks_can_be_allowed(shared_data, caplog):
    """A detector's classes on a set that lacks one: no objects, an id of its own, the others as they were."""
    whole = load_dataset(shared_data / "coco_subset", "val")
    chosen = load_dataset(
        shared_data / "coco_subset", "val", classes=["unicorn", "dog", "griffin"], missing_classes="allow"
    ).check()
    assert chosen.class_names == ("unicorn", "dog", "griffin")
    assert chosen.class_ids[1] == 18
    assert len(set(chosen.class_ids.tolist()) | set(whole.class_ids.tolist())) == len(whole.class_ids) + 2
    assert set(chosen.labels.tolist()) == {1}
    left = whole.num_objects - chosen.num_objects
    assert f"{left} of {whole.num_objects} objects are of classes that the detector was not trained on" in caplog.text
    with pytest.raises(DataError, match="twice"):
        whole.with_classes(["dog", "dog"], missing="allow")
    nothing = whole.with_classes(["griffin"], missing="allow").check()
    assert nothing.num_objects == 0
    assert len(nothing) == len(whole)


def test_a_foreign_format_is_a_few_lines(shared_data, caplog):
    """WIDER FACE as kept here: up to 1,968 faces an image, some boxes empty."""
    entries = json.loads((shared_data / "annotations_only" / "wider_face_train_boxes.json").read_text())["data"]
    boxes = np.array([box for *_, faces in entries for box in faces], np.float64)
    boxes[:, 2:] += boxes[:, :2]
    rows = np.repeat(np.arange(len(entries)), [len(faces) for *_, faces in entries])
    table = build_table(
        ObjectRows(rows, boxes, np.zeros(len(rows), np.int32)),
        source="WIDER FACE",
        root=shared_data,
        file_names=[name for name, *_ in entries],
        image_ids=None,
        sizes_wh=np.array([[width, height] for _, width, height, _ in entries]),
        class_names=["face"],
    ).check()
    assert len(table) == 12_880
    assert len(rows) == 159_424
    assert table.num_objects == 159_424 - 31
    assert "inverted boxes dropped: 2; empty boxes dropped: 29" in caplog.text
