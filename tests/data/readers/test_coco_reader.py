"""COCO JSON: real files, and every way in which one can be wrong."""

import json
import logging

import numpy as np
import pytest

from facts import facts
from sniper.data.flags import ObjectFlag
from sniper.data.readers.coco import read_coco
from sniper.data.source import DataSource
from sniper.errors import DataError
from table_cases import same


def dataset():
    return {
        "images": [
            {"id": 7, "file_name": "b.jpg", "width": 100, "height": 80},
            {"id": 3, "file_name": "a.jpg", "width": 50, "height": 60},
            {"id": 5, "file_name": "empty.jpg", "width": 50, "height": 60},
        ],
        "categories": [{"id": 9, "name": "dog"}, {"id": 2, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 3, "category_id": 9, "bbox": [1, 2, 10, 20], "area": 55.5, "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 2, "bbox": [0, 0, 100, 80], "iscrowd": 1, "area": 3},
            {"id": 3, "image_id": 3, "category_id": 2, "bbox": [5.5, 2, 10, 20]},
        ],
    }


@pytest.fixture
def write(tmp_path):
    def to_file(data, name="set.json"):
        (tmp_path / name).write_text(data if isinstance(data, str) else json.dumps(data))
        return tmp_path / name

    return to_file


def test_columns(write):
    table = read_coco(write(dataset())).check()
    assert table.class_names == ("cat", "dog")
    assert table.class_ids.tolist() == [2, 9]
    assert list(table.file_names) == ["b.jpg", "a.jpg", "empty.jpg"]
    assert table.image_ids.tolist() == [7, 3, 5]
    assert table.sizes_wh.tolist() == [[100, 80], [50, 60], [50, 60]]
    assert table.offsets.tolist() == [0, 1, 3, 3]
    assert table.boxes_xyxy.tolist() == [[0, 0, 100, 80], [1, 2, 11, 22], [5.5, 2, 15.5, 22]]
    assert table.labels.tolist() == [0, 1, 0]
    assert table.flags.tolist() == [ObjectFlag.CROWD, 0, 0]
    assert table.areas.tolist() == [3, 55.5, 200]
    assert table.masks is None


def test_masks_of_every_form(write, caplog):
    data = dataset()
    shapes = [
        [[1, 2, 11, 2, 11, 22], [1, 2, 5, 2, 5, 8, 1, 8]],
        {"size": [80, 100], "counts": [1, 7999]},
        [],
        None,
        [[1, 2, 3, 4]],
        "broken",
        {"size": [60, 50], "counts": "abc]"},
    ]
    data["annotations"] = [
        {"id": 10 + k, "image_id": 3, "category_id": 9, "bbox": [1, 2, 10, 20], "segmentation": shape}
        for k, shape in enumerate(shapes)
    ]
    table = read_coco(write(data)).check()
    assert [len(table.masks.polygons(row)) for row in range(7)] == [2, 0, 0, 0, 0, 0, 0]
    assert table.masks.polygons(0)[1].tolist() == [[1, 2], [5, 2], [5, 8], [1, 8]]
    assert [table.masks.run_length(row) for row in range(7)] == [None, shapes[1], None, None, None, None, shapes[6]]
    assert "dropped: 2" in caplog.text


def test_test_set_without_annotations(write, caplog):
    data = dataset()
    del data["annotations"]
    table = read_coco(write(data)).check()
    assert (len(table), table.num_objects) == (3, 0)
    assert "has no annotations" in caplog.text


def test_nan_and_infinity_are_dropped_boxes(write, caplog):
    data = dataset()
    data["images"][0]["file_name"] = "NaN.jpg"
    data["annotations"][0]["bbox"] = [float("nan"), 2, 10, 20]
    data["annotations"][1]["bbox"] = [0, 0, float("-inf"), 20]
    data["annotations"][2]["area"] = float("nan")
    table = read_coco(write(data)).check()
    assert table.annotation_ids.tolist() == [3]
    assert table.areas.tolist() == [200]
    assert table.file_name(0) == "NaN.jpg"
    assert "not finite dropped: 2" in caplog.text


def change(path, value):
    def apply(data):
        *way, last = path
        place = data
        for key in way:
            place = place[key]
        if value is None:
            del place[last]
        else:
            place[last] = value

    return apply


@pytest.mark.parametrize(
    ("breaks", "said"),
    [
        (change(["images"], []), "has no images"),
        (change(["images"], None), "not a COCO annotation file.*images"),
        (change(["categories"], None), "not a COCO annotation file.*categories"),
        (change(["images", 1, "id"], 7), r"image id 7 is given to b\.jpg and to a\.jpg"),
        (change(["images", 1, "width"], None), r"image 3 \(images\[1\]\).*width"),
        (change(["images", 1, "width"], "wide"), r"image 3 \(images\[1\]\).*width"),
        (change(["images", 1, "height"], 0), r"image 3 \(a\.jpg\) has size 50x0"),
        (change(["images", 1, "id"], 10**30), "image 1000000000000000000000000000000 "),
        (change(["categories", 0, "id"], 2), "category id 2 is given twice"),
        (change(["annotations", 2, "image_id"], 4), "annotation 3 names image 4"),
        (change(["annotations", 2, "category_id"], 4), "annotation 3 names category 4"),
        (change(["categories"], []), "annotation 1 names category 9"),
        (change(["annotations", 2, "bbox"], None), r"annotation 3 \(annotations\[2\]\).*bbox"),
        (change(["annotations", 2, "bbox"], [1, 2, 3]), r"annotation 3 \(annotations\[2\]\)"),
        (change(["annotations", 2, "bbox"], [1, 2, 3, "x"]), r"annotation 3 \(annotations\[2\]\)"),
        (change(["annotations", 2, "image_id"], None), r"annotation 3 \(annotations\[2\]\).*image_id"),
        (change(["annotations", 2], [1]), r"annotation that is no object \(annotations\[2\]\)"),
    ],
)
def test_wrong_content_is_named(write, breaks, said):
    data = dataset()
    breaks(data)
    with pytest.raises(DataError, match=rf"set\.json.*{said}") as caught:
        read_coco(write(data))
    assert "\n" not in str(caught.value)


def test_files_that_are_not_coco(write, tmp_path):
    with pytest.raises(DataError, match="not a COCO annotation file"):
        read_coco(write([1, 2]))
    with pytest.raises(DataError, match="No such file"):
        read_coco(tmp_path / "none.json")
    whole = json.dumps(dataset(), indent=1)
    with pytest.raises(DataError, match=facts("ends in the middle", "cut off", "byte 700") + r".*line \d\d,"):
        read_coco(write(whole[:700]))
    with pytest.raises(DataError, match="ends in the middle"):
        read_coco(write(""))
    with pytest.raises(DataError, match=r"is not JSON.* at line 4, byte \d+"):
        read_coco(write(whole.replace('"id": 7', '"id": oops', 1)))
    cut_with_nan = json.dumps(dataset() | {"info": float("nan")})
    with pytest.raises(DataError, match=r"set\.json"):
        read_coco(write(cut_with_nan[:-9]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace(b"b.jpg", b"b\xf5.jpg"), "is not text in UTF-8"),  # in what is read
        (lambda text: text.replace(b'"id": 7', b'"id": "\xff"'), "is not text in UTF-8"),  # in a wrong entry
        (
            lambda text: text.replace(b'"file_name": "b', b'"x": NaN, "file_name": "\xf5'),
            "is not text in UTF-8",
        ),  # beside NaN
        (lambda text: text.replace(b'"id": 7', b'"id": ' + b"[" * 5000), "is nested too deeply"),
        (lambda text: text.replace(b'"id": 7', b'"id": "7", "x": ' + b"[" * 5000), "is nested too deeply"),
    ],
)
def test_bytes_that_are_no_text_and_deep_nesting_are_refused(write, change, said):  # found by benchmarks/fuzz.py
    file = write(dataset())
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(DataError, match=said) as caught:
        read_coco(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_image_name_that_no_file_can_have_is_an_image_that_is_not_there(write):  # found by benchmarks/fuzz.py
    data = dataset()
    data["images"][0]["file_name"] = "x" * 3000
    data["images"][1]["file_name"] = "a\0b.jpg"
    file = write(data)
    assert len(read_coco(file)) == 3
    with pytest.raises(DataError, match="none of 3 images is found"):
        DataSource(file).open(needs_images=True)


def test_broken_json_behind_a_wrong_entry(write):  # found by benchmarks/fuzz.py
    data = dataset()
    data["images"][0]["id"] = None
    with pytest.raises(DataError, match=r"is not JSON.* at line 1, byte \d+"):
        read_coco(write(json.dumps(data)[:-200] + "]]"))


@pytest.mark.parametrize(
    ("file", "images"),
    [
        ("set.json", ""),
        ("set.json", "images"),
        ("annotations/instances_val2017.json", "val2017"),
        ("annotations/instances_val2017.json", "images/val2017"),
        ("annotations/instances_val2017.json", "val"),
        ("annotations/train.json", ""),
        ("annotations/train.json", "train/images"),
        ("train/_annotations.coco.json", "train"),
    ],
)
def test_image_root_is_found(tmp_path, file, images):
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(dataset()))
    (tmp_path / images).mkdir(parents=True, exist_ok=True)
    (tmp_path / images / "b.jpg").touch()
    assert read_coco(path).image_path(0) == tmp_path / images / "b.jpg"
    assert read_coco(path, image_root="elsewhere").image_path(0).as_posix() == "elsewhere/b.jpg"


@pytest.mark.parametrize(
    ("name", "images", "boxes", "crowds"),
    [
        ("coco_subset/annotations/instances_train2017.json", 192, 1732, 18),
        ("coco_subset/annotations/instances_val2017.json", 164, 1560, 17),
        ("coco_subset/annotations/person_keypoints_val2017.json", 79, 118, 1),
        ("aerial_cars_kit_ais/annotations/train.json", 45, 1847, 0),
        ("annotations_only/taco_annotations.json", 1500, 4784, 0),
        ("annotations_only/uavvaste_annotations.json", 772, 3718, 0),
        ("annotations_only/visdrone_first50_coco.json", 50, 3326, 0),
    ],
)
def test_real_files(shared_data, name, images, boxes, crowds):
    table = read_coco(shared_data / name).check()
    assert (len(table), table.num_objects, int(table.ignored.sum())) == (images, boxes, crowds)


def test_agrees_with_pycocotools(shared_data):
    from pycocotools.coco import COCO

    path = shared_data / "coco_subset" / "annotations" / "instances_val2017.json"
    table = read_coco(path)
    oracle = COCO(path)
    for image in range(len(table)):
        annotations = oracle.loadAnns(oracle.getAnnIds(imgIds=int(table.image_ids[image])))
        rows = table.objects(image)
        assert table.annotation_ids[rows].tolist() == [a["id"] for a in annotations]
        assert table.class_ids[table.labels[rows]].tolist() == [a["category_id"] for a in annotations]
        assert np.allclose(table.areas[rows], [a["area"] for a in annotations])
        for row, annotation in zip(range(rows.start, rows.stop), annotations, strict=True):
            if annotation["iscrowd"]:
                assert table.masks.run_length(row) == annotation["segmentation"]
            else:
                found = [ring.ravel() for ring in table.masks.polygons(row)]
                assert all(np.allclose(a, b) for a, b in zip(found, annotation["segmentation"], strict=True))
    assert table.root.name == "val2017"


def test_order_of_annotations_does_not_leak(write):
    data = dataset()
    one = read_coco(write(data))
    data["categories"].reverse()
    assert same(read_coco(write(data)), one)


def test_sound_file_is_silent(write, caplog):
    with caplog.at_level(logging.DEBUG, "sniper"):
        read_coco(write(dataset()))
    assert not caplog.records
