"""OpenImages' CSV files: versions, layouts, image-level labels, hierarchy, and what may be wrong with them."""

import json
import logging
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facts import facts
from sniper.data.flags import ObjectFlag
from sniper.data.source import DataSource, load_dataset
from sniper.errors import DataError
from sniper.pipeline.tables import training_table_of
from sniper.recipe import Recipe

HEADER = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
BOXES = f"""{HEADER}
b1,xclick,/m/02,1,0.1,0.5,0.2,0.7,1,0,0,0,0
b1,xclick,/m/03,1,0,1,0,1,0,1,1,0,-1
a0,xclick,/m/02,1,0.25,0.75,0.5,1,0,0,0,1,1
"""
DESCRIPTIONS = "/m/03,Dog\n/m/02,Cat\n/m/01,Animal\n"
LABELS = """ImageID,Source,LabelName,Confidence
c2,verification,/m/03,0
b1,verification,/m/02,1
a0,machine,/m/01,0.25
b1,verification,/m/99,1
"""
HIERARCHY = {
    "LabelName": "/m/0bl9f",
    "Subcategory": [
        {"LabelName": "/m/01", "Subcategory": [{"LabelName": "/m/mammal", "Subcategory": [{"LabelName": "/m/02"}]}]},
        {"LabelName": "/m/03", "Part": [{"LabelName": "/m/01"}]},
    ],
}


def write_set(folder: Path, *, boxes: str = BOXES, descriptions: str = DESCRIPTIONS, labels: str = LABELS) -> Path:
    """A set as it is downloaded, of three images: a0 and c2 of 40 x 20 px, b1 of 20 x 40."""
    (folder / "train").mkdir(parents=True)
    for name, size in (("a0", (40, 20)), ("b1", (20, 40)), ("c2", (40, 20))):
        Image.new("RGB", size).save(folder / "train" / f"{name}.jpg")
    (folder / "oidv6-train-annotations-bbox.csv").write_text(boxes)
    (folder / "class-descriptions-boxable.csv").write_text(descriptions)
    (folder / "train-annotations-human-imagelabels-boxable.csv").write_text(labels)
    (folder / "bbox_labels_600_hierarchy.json").write_text(json.dumps(HIERARCHY))
    return folder


def test_a_set_as_it_is_downloaded(tmp_path):
    table = load_dataset(write_set(tmp_path)).check()
    assert table.class_names == ("Dog", "Cat", "Animal")
    assert list(table.file_names) == ["a0.jpg", "b1.jpg", "c2.jpg"], "c2 has verified labels and no box"
    assert table.sizes_wh.tolist() == [[40, 20], [20, 40], [40, 20]]
    assert table.offsets.tolist() == [0, 1, 3, 3]
    np.testing.assert_allclose(table.boxes_xyxy, [[10, 10, 30, 20], [2, 8, 10, 28], [0, 0, 20, 40]], rtol=1e-6)
    assert table.labels.tolist() == [1, 1, 0]
    assert table.annotation_ids.tolist() == [3, 1, 2], "rows of the file"
    marked = [ObjectFlag.DEPICTION | ObjectFlag.INSIDE, ObjectFlag.OCCLUDED, ObjectFlag.TRUNCATED | ObjectFlag.GROUP_OF]
    assert table.flags.tolist() == [int(flags) for flags in marked]
    assert table.regions.tolist() == [False, False, True]
    verified = table.image_labels
    assert verified.offsets.tolist() == [0, 1, 2, 3]
    assert list(zip(verified.labels.tolist(), verified.confidence.tolist(), strict=True)) == [(2, 0.25), (1, 1), (0, 0)]
    assert table.class_ancestors.tolist() == [[1, 2]], "a mammal, which has no boxes, is between; parts are no kinds"


def test_versions_and_layouts(tmp_path):
    whole = load_dataset(write_set(tmp_path / "whole"))
    short = "LabelName,XMax,XMin,YMin,YMax,ImageID\n/m/02,0.5,0.1,0.2,0.7,b1\n"  # as in a challenge, reordered
    folder = write_set(tmp_path / "short", boxes=short, descriptions="\ufeffLabelName,DisplayName\r\n/m/02,Cat\r\n\r\n")
    (folder / "train-annotations-human-imagelabels-boxable.csv").unlink()
    (folder / "bbox_labels_600_hierarchy.json").unlink()
    table = load_dataset(folder).check()
    assert (len(table), table.flags.tolist(), table.image_labels, table.class_ancestors) == (1, [0], None, None)
    np.testing.assert_array_equal(table.boxes_xyxy, whole.boxes_xyxy[1:2])

    made = write_set(tmp_path / "made")
    fiftyone = tmp_path / "fiftyone" / "train"
    for source, place in (
        ("train", "data"),
        ("oidv6-train-annotations-bbox.csv", "labels/detections.csv"),
        ("train-annotations-human-imagelabels-boxable.csv", "labels/classifications.csv"),
        ("class-descriptions-boxable.csv", "metadata/classes.csv"),
        ("bbox_labels_600_hierarchy.json", "metadata/hierarchy.json"),
    ):
        (fiftyone / place).parent.mkdir(parents=True, exist_ok=True)
        (made / source).rename(fiftyone / place)
    table = DataSource(fiftyone.parent).open("train")
    assert table.root == fiftyone / "data"
    assert table.fingerprint() == whole.fingerprint()

    toolkit = write_set(tmp_path / "toolkit")
    for kind in ("Cat", "Dog"):  # an image lies in the folder of each of its classes
        place = toolkit / "OID" / "Dataset" / "train" / kind
        place.mkdir(parents=True)
        os.link(toolkit / "train" / "b1.jpg", place / "b1.jpg")
    table = load_dataset(toolkit / "oidv6-train-annotations-bbox.csv", image_root=toolkit / "OID" / "Dataset")
    assert list(table.file_names) == ["train/Cat/b1.jpg"]


def test_splits(tmp_path):
    folder = write_set(tmp_path)
    (folder / "validation").mkdir()
    (folder / "train" / "c2.jpg").rename(folder / "validation" / "c2.jpg")
    lines = f"{HEADER}\nc2,xclick,/m/02,1,0,0.5,0,0.5,0,0,0,0,0\n"
    (folder / "validation-annotations-bbox.csv").write_text(lines)
    assert list(DataSource(folder).open("train").file_names) == ["a0.jpg", "b1.jpg"]
    table = DataSource(folder).open("evaluate")
    assert (table.root, list(table.file_names)) == (folder / "validation", ["c2.jpg"])
    assert table.image_labels is None, "those of the training images are not meant"
    assert len(load_dataset(folder, "val")) == 1
    with pytest.raises(DataError, match=facts("several splits", "validation-annotations-bbox.csv", "split=")):
        load_dataset(folder)
    with pytest.raises(DataError, match=facts("no boxes of split 'test'", "split=")):
        load_dataset(folder, "test")


def test_subsets_are_counted(tmp_path, caplog):
    folder = write_set(tmp_path)
    (folder / "train" / "a0.jpg").rename(folder / "train" / "z9.jpg")
    table = load_dataset(folder).check()
    assert list(table.file_names) == ["b1.jpg", "c2.jpg"]
    assert table.annotation_ids.tolist() == [1, 2]
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(told) == 1
    assert re.search(
        facts("1 of 3 annotated images", str(folder / "train"), "1 images there are not annotated"), told[0]
    )
    for image in (folder / "train").iterdir():
        image.unlink()
    with pytest.raises(DataError, match=facts("none of 3 images", "a0.jpg", str(folder / "train"), "image_root=")):
        load_dataset(folder)


def test_unreadable_images(tmp_path, caplog):
    folder = write_set(tmp_path)
    (folder / "train" / "b1.jpg").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"b1\.jpg is not an image"):
        load_dataset(folder)
    table = load_dataset(folder, skip_bad_images=True).check()
    assert list(table.file_names) == ["a0.jpg", "c2.jpg"]
    assert table.image_labels.offsets.tolist() == [0, 1, 2]
    assert table.annotation_ids.tolist() == [3]
    assert "1 unreadable" in caplog.text
    assert len(table.repairs.unreadable) == 1


def test_boxes_outside_are_clipped_or_dropped_and_counted(tmp_path, caplog):
    lines = ["-0.5,0.5,0.2,0.7", "1.2,1.4,0,1", "0.5,0.4,0,1", ",nan,0,1", "0.1,0.5,0.2,0.7"]
    boxes = "".join(f"a0,xclick,/m/02,1,{corners},0,0,0,0,0\n" for corners in lines)
    table = load_dataset(write_set(tmp_path, boxes=f"{HEADER}\n{boxes}")).check()
    assert table.annotation_ids.tolist() == [1, 5]
    for counted in ("clipped to the image: 1", "not finite dropped: 1", "inverted boxes dropped: 1", "dropped: 1"):
        assert counted in caplog.text


BAD_LINES = {
    "missing columns": (BOXES.replace("XMax", "Width"), facts("bbox.csv, line 1", "XMax missing", "XMin,Width")),
    "empty": ("", facts("bbox.csv, line 1", "ImageID", "empty")),
    "unknown class": (BOXES.replace("/m/03", "/m/77"), facts("line 3", "/m/77", "descriptions-boxable.csv", "1 boxes")),
    "short line": (BOXES + "a0,xclick\n", facts("line 5", "Expected 13 columns, got 2", "remove the line")),
    "no number": (BOXES.replace("0.25", "left"), facts("line 4", "'left'", "double")),
    "no text": (BOXES.replace("a0", "\xff"), facts("bbox.csv", "UTF-8", "0xff")),
    "pixels": (BOXES.replace("0.1,0.5,0.2,0.7", "10,50,20,70").replace("0.25,0.75,0.5,1", "3,9,4,8"),
               facts("line 2", "looks like pixels", "divide x by the width")),
}  # fmt: skip


@pytest.mark.parametrize("fault", BAD_LINES)
def test_faults_of_boxes_are_named(tmp_path, fault):
    folder = write_set(tmp_path)
    (folder / "oidv6-train-annotations-bbox.csv").write_bytes(BAD_LINES[fault][0].encode("latin-1"))
    with pytest.raises(DataError, match=BAD_LINES[fault][1]) as error:
        load_dataset(folder)
    assert "\n" not in str(error.value)


CLASSES = "class-descriptions-boxable.csv"
VERIFIED = "train-annotations-human-imagelabels-boxable.csv"
TREE = "bbox_labels_600_hierarchy.json"
BAD_FILES = {
    "a class twice": (CLASSES, DESCRIPTIONS + "/m/02,Cow\n", facts("line 4", "/m/02", "twice")),
    "a name twice": (CLASSES, DESCRIPTIONS + "/m/04,Cat\n", facts("line 4", "'Cat'", "twice")),
    "a class without a name": (CLASSES, "/m/02\n", facts("line 1", "a MID and a name", "/m/02")),
    "no classes": (CLASSES, "", facts("describes no class")),
    "no confidence": (VERIFIED, LABELS.replace(",0.25", ",7"),
                      facts("line 4", "confidence 7", "0", "1")),
    "labels cut off": (VERIFIED, LABELS[:-8], facts("line 5", "got 3")),
    "no JSON": (TREE, "{", facts("hierarchy.json", "as JSON")),
    "another JSON": (TREE, '{"images": []}', facts("LabelName", "images")),
    "a loop": (TREE,
               '{"LabelName": "a", "Subcategory": [{"LabelName": "b", "Subcategory": [{"LabelName": "a"}]}]}',
               facts("hierarchy.json", "own ancestor")),
}  # fmt: skip


@pytest.mark.parametrize("fault", BAD_FILES)
def test_faults_of_other_files_are_named(tmp_path, fault):
    name, content, said = BAD_FILES[fault]
    folder = write_set(tmp_path)
    (folder / name).write_text(content)
    with pytest.raises(DataError, match=said):
        load_dataset(folder)


def test_objects_with_some_flags_are_ignored_if_asked(tmp_path):
    source = DataSource(write_set(tmp_path), ignore_flags=("depiction", "occluded"))
    table = source.open("train").check()
    assert table.ignored.tolist() == [True, True, True]
    assert table.regions.tolist() == [False, False, True], "a group stays a region"
    assert replace(source, ignore_flags=("inside",)).open("train").ignored.tolist() == [True, False, True]
    assert replace(source, ignore_flags=()).open("train").ignored.tolist() == [False, False, True]
    recipe = Recipe().changed([f"data.train={tmp_path}", "data.ignore_flags=[depiction]"])
    assert training_table_of(recipe).ignored.tolist() == [True, False, True]


def test_missing_descriptions_are_asked_for(tmp_path):
    (write_set(tmp_path) / "class-descriptions-boxable.csv").unlink()
    with pytest.raises(DataError, match=facts("bbox.csv needs class-descriptions-boxable.csv", str(tmp_path))):
        load_dataset(tmp_path)


@pytest.mark.parametrize(("split", "objects"), [("test", 2784), ("train", 13134)])
def test_real_files_with_the_hierarchy_of_600_classes(shared_data, tmp_path, split, objects):
    real = shared_data / "openimages"
    lines = (real / f"{split}-annotations-bbox.csv").read_text().splitlines()[1:]
    ids = sorted({line.split(",")[0] for line in lines})
    Image.new("RGB", (64, 48)).save(tmp_path / "one.jpg")
    (tmp_path / "images").mkdir()
    for one in ids:
        os.link(tmp_path / "one.jpg", tmp_path / "images" / f"{one}.jpg")
    table = load_dataset(real, split, image_root=tmp_path / "images").check()
    assert (len(table), table.num_objects) == (len(ids), objects)
    assert len(table.class_names) == 601, "of both files of descriptions, that of all classes"
    named = {(table.class_names[low], table.class_names[high]) for low, high in table.class_ancestors}
    assert {("Oven", "Home appliance"), ("Oven", "Kitchen appliance"), ("Boy", "Person"), ("Cat", "Animal")} <= named
    assert ("Human head", "Human body") not in named, "a part"
    assert set(np.array(table.class_names)[np.unique(table.labels)]) == {
        "Human body", "Human foot", "Human leg", "Human head", "Human arm", "Human hand",
    }  # fmt: skip
    columns = np.array([line.split(",")[8:] for line in lines], np.int8)
    assert (table.flags & ObjectFlag.GROUP_OF > 0).sum() == (columns[:, 2] == 1).sum() > 0
