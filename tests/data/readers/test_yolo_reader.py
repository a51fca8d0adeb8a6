"""YOLO labels: the layouts in use, and lines that are wrong."""

import warnings

import numpy as np
import pytest
from PIL import Image

from facts import facts
from sniper.data.readers.coco import read_coco
from sniper.data.readers.yolo import read_yolo
from sniper.errors import DataError


def put_image(path, width=100, height=50, orientation=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    Image.new("RGB", (width, height)).save(path, exif=exif)


def put(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def flat(tmp_path):
    """Two images with labels beside them and one without."""
    for name in "abc":
        put_image(tmp_path / f"{name}.jpg")
    put(tmp_path / "a.txt", "0 0.5 0.5 0.2 0.4\n\n1 0.1 0.2 0.2 0.4\n")
    put(tmp_path / "b.txt", "")
    put(tmp_path / "classes.txt", "car\nbus\n")
    return tmp_path


def test_flat_folder(flat):
    table = read_yolo(flat).check()
    assert table.class_names == ("car", "bus")
    assert list(table.file_names) == ["a.jpg", "b.jpg", "c.jpg"]
    assert table.image_ids.tolist() == [1, 2, 3]
    assert table.offsets.tolist() == [0, 2, 2, 2]
    assert np.allclose(table.boxes_xyxy, [[40, 15, 60, 35], [0, 0, 20, 20]], atol=1e-5)
    assert table.labels.tolist() == [0, 1]
    assert table.masks is None
    assert table.image_path(0).is_file()


def test_split_of_a_flat_folder_is_a_list(flat):
    put(flat / "val.txt", "./a.jpg\nc.jpg\n")
    assert list(read_yolo(flat, "val").file_names) == ["a.jpg", "c.jpg"]
    with pytest.raises(DataError, match=r"no split 'test'.*test\.txt"):
        read_yolo(flat, "test")


def test_turned_photo_has_the_size_it_is_seen_in(flat):
    put_image(flat / "a.jpg", 100, 50, orientation=6)
    table = read_yolo(flat)
    assert table.sizes_wh[0].tolist() == [50, 100]
    assert np.allclose(table.boxes_xyxy[0], [20, 30, 30, 70])


@pytest.mark.parametrize(
    "layout", ["images/{}/a.jpg labels/{}/a.txt", "{}/images/a.jpg {}/labels/a.txt", "{}/a.jpg {}/a.txt"]
)
def test_folders_with_splits(tmp_path, layout):
    for split in ("train", "val"):
        image, label = layout.format(split, split).split()
        put_image(tmp_path / image)
        put(tmp_path / label, "0 0.5 0.5 0.2 0.4" + ("\n0 0.5 0.5 0.1 0.1" if split == "val" else ""))
    put(tmp_path / "voc.names", "car\n")
    assert [read_yolo(tmp_path, split).num_objects for split in ("train", "val")] == [1, 2]
    with pytest.raises(DataError, match="no split 'test'"):
        read_yolo(tmp_path, "test")


@pytest.mark.parametrize("names", ["[car, bus]", "{0: car, 1: bus}", "\n  0: car\n  1: bus"])
@pytest.mark.parametrize("path", ["", "path: .\n", "path: /nowhere/at/all\n"])
def test_description(tmp_path, path, names):
    put(tmp_path / "data.yaml", f"{path}train: images/train\nval: val.txt\nnames: {names}\n")
    put_image(tmp_path / "images/train/x/a.png")
    put(tmp_path / "labels/train/x/a.txt", "1 0.5 0.5 0.2 0.4")
    put_image(tmp_path / "images/other/b.png")
    put(tmp_path / "labels/other/b.txt", "")
    put(tmp_path / "val.txt", "images/other/b.png\n")
    for place in (tmp_path, tmp_path / "data.yaml"):
        table = read_yolo(place).check()
        assert list(table.file_names) == ["images/train/x/a.png"]
        assert table.class_names == ("car", "bus")
        assert table.labels.tolist() == [1]
        assert read_yolo(place, "val").num_objects == 0
    with pytest.raises(DataError, match=facts("test", "train", "val")):
        read_yolo(tmp_path, "test")


def test_description_as_exporters_write_it(tmp_path):
    put(tmp_path / "data.yaml", "train: ../train/images\nval: ../valid/images\nnc: 1\nnames: ['7']\n")
    put_image(tmp_path / "train/images/a.jpg")
    put(tmp_path / "train/labels/a.txt", "0 0.5 0.5 0.2 0.4")
    assert read_yolo(tmp_path).num_objects == 1
    with pytest.raises(DataError, match=facts("val", "../valid/images")):
        read_yolo(tmp_path, "val")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train: [a\n", r"cannot read .*data\.yaml: while parsing"),
        ("train: images\n", "no names"),
        ("- a\n", "no names"),
        ("train: images\nnames: {1: a, 2: b}\n", r"numbered 0\.\.1"),
    ],
)
def test_wrong_description(tmp_path, text, said):
    put(tmp_path / "data.yaml", text)
    with pytest.raises(DataError, match=said) as caught:
        read_yolo(tmp_path)
    assert "\n" not in str(caught.value)


def test_polygons_become_boxes_and_masks(flat):
    put(flat / "a.txt", "0 0.5 0.5 0.2 0.4\n1 0.1 0.2 0.3 0.2 0.3 0.6\n")
    table = read_yolo(flat).check()
    assert np.allclose(table.boxes_xyxy[1], [10, 10, 30, 30])
    assert np.allclose(table.masks.polygons(1)[0], [[10, 10], [30, 10], [30, 30]])
    assert table.masks.polygons(0) == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("0 0.5 0.5 0.2", "4 fields"),
        ("0 0.5 0.5 0.2 0.4 0.9", "6 fields"),
        ("0 0.5 0.5 0.2 0.4 0.9 0.3 0.2", "8 fields"),
        ("0 0.5 half 0.2 0.4", "half"),
        ("2 0.5 0.5 0.2 0.4", r"class 2 is not in 0\.\.1"),
        ("-1 0.5 0.5 0.2 0.4", r"class -1 is not in 0\.\.1"),
        ("0.5 0.5 0.5 0.2 0.4", r"class 0\.5 is not in"),
        ("nan 0.5 0.5 0.2 0.4", "class nan is not in"),
    ],
)
def test_wrong_lines_are_named(flat, line, said):
    put(flat / "a.txt", f"0 0.5 0.5 0.2 0.4\n\n{line}\n")
    with pytest.raises(DataError, match=rf"a\.txt, line 3: .*{said}"):
        read_yolo(flat)


def test_repairs_are_counted(flat, caplog):
    put(flat / "a.txt", "0 0.5 0.5 nan 0.4\n0 0.5 0.5 -0.2 0.4\n0 0.5 0.5 0 0.4\n0 0.0 0.5 0.2 0.4\n0 3 3 0.1 0.1\n")
    assert read_yolo(flat).check().num_objects == 1
    assert len(caplog.records) == 1


def test_nothing_to_read(flat, tmp_path):
    put(flat / "classes.txt", "")
    with pytest.raises(DataError, match="no class names: looked for"):
        read_yolo(flat)
    assert read_yolo(flat, names=["x", "y"]).class_names == ("x", "y")
    for name in "ab":
        (flat / f"{name}.txt").unlink()
    with pytest.raises(DataError, match=facts(3, "images", "label", "a.txt")):
        read_yolo(flat, names=["x"])
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="has no images"):
        read_yolo(tmp_path / "none", names=["x"])
    put(flat / "a.jpg", "no image")
    put(flat / "a.txt", "")
    with pytest.raises(DataError, match=r"a\.jpg is not an image"):
        read_yolo(flat, names=["x"])


def test_bad_images_can_be_left_out(flat, caplog):
    put(flat / "b.jpg", "no image")
    table = read_yolo(flat, skip_bad_images=True).check()
    assert list(table.file_names) == ["a.jpg", "c.jpg"]
    assert table.offsets.tolist() == [0, 2, 2]
    assert "1 unreadable images left out" in caplog.text
    assert "b.jpg" in caplog.text
    for name in "ac":
        put(flat / f"{name}.jpg", "")
    with pytest.raises(DataError, match=r"a\.jpg is empty"):
        read_yolo(flat, skip_bad_images=True)


def test_aerial_cars_are_the_same_in_both_forms(shared_data):
    folder = shared_data / "aerial_cars_kit_ais"
    yolo = read_yolo(folder).check()
    assert (len(yolo), yolo.num_objects) == (65, 2593)
    rows = {name: row for row, name in enumerate(yolo.file_names)}
    for split in ("train", "test"):
        coco = read_coco(folder / "annotations" / f"{split}.json")
        part = yolo.select([rows[name] for name in coco.file_names])
        assert part.class_names == coco.class_names
        assert np.array_equal(part.sizes_wh, coco.sizes_wh)
        assert np.array_equal(part.labels, coco.labels)
        assert np.allclose(part.boxes_xyxy, coco.boxes_xyxy, atol=0.02)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nc: 3\nnames: [car, bus]\n", facts("data.yaml", "nc is 3", 2)),
        ("names: [car, bus, car]\n", facts("data.yaml", 0, 2, "car")),
        ("names: [car, bus]\ntrain: images\n", facts("data.yaml", "train is given twice", "line 3")),
    ],
)
def test_descriptions_that_contradict_themselves(tmp_path, text, said):
    put(tmp_path / "data.yaml", f"train: images\n{text}")
    put_image(tmp_path / "images/a.jpg")
    put(tmp_path / "labels/a.txt", "0 0.5 0.5 0.2 0.4")
    with pytest.raises(DataError, match=said):
        read_yolo(tmp_path)


def test_class_names_are_what_is_written(tmp_path):
    put(tmp_path / "data.yaml", "train: images\nnc: 6\nnames: [yes, no, on, 007, 1.50, null]\n")
    put_image(tmp_path / "images/a.jpg")
    put(tmp_path / "labels/a.txt", "0 0.5 0.5 0.2 0.4")
    assert read_yolo(tmp_path).class_names == ("yes", "no", "on", "007", "1.50", "null")
    put(tmp_path / "data.yaml", "train: images\nnames:\n  0: no\n  1: yes\n")
    assert read_yolo(tmp_path).class_names == ("no", "yes")


def test_labels_in_pixels_are_named(flat, caplog):
    put(flat / "a.txt", "0 50 25 20 20\n1 10 10 20 20\n")
    with pytest.raises(DataError, match=facts(2, "of 2", "pixels", str(flat / "a.txt"))):
        read_yolo(flat)
    put(flat / "a.txt", "0 50 25 70 25 70 40\n")
    with pytest.raises(DataError, match="pixels"):
        read_yolo(flat)
    put(flat / "b.txt", "0 0.5 0.5 0.2 0.4\n1 0.5 0.5 0.1 0.1\n")
    assert read_yolo(flat).num_objects == 2
    assert "1 of 3 labels look like pixels" in caplog.text


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("train: images\nnames: {0: car, a: bus, ٣: van}\n", "names must be numbered"),
        ("train: images\nnames: {0: car, " + "1" * 500 + ": bus}\n", "names must be numbered"),
        ("train: images\nnames:\n  0: car\n  ? " + "1" * 5000 + "\n  : bus\n", "names must be numbered"),
        ("path: [a]\ntrain: images\nnames: [car]\n", r"path is \['a'\].*expected the path of a folder"),
        ("path: {a: b}\ntrain: images\nnames: [car]\n", "path is .*expected the path of a folder"),
        ("train: {a: images}\nnames: [car]\n", "train is .*expected the path of a folder"),
        ("train: [[images]]\nnames: [car]\n", "train is .*expected the path of a folder"),
        ("train: " + "a" * 5000 + "\nnames: [car]\n", "which is not there"),
        ("path: " + "a" * 5000 + "\ntrain: nowhere\nnames: [car]\n", "which is not there"),
        ("train: " + "[" * 150 + "]" * 150 + "\nnames: [car]\n", "train is .*expected the path of a folder"),
        ('path: "a\\0b"\ntrain: "c\\0d"\nnames: [car]\n', "which is not there"),
        ("train: images/a.jpg\nnames: [car]\n", r"cannot read .*a\.jpg.*expected images, one a line"),
        ("train: images\nnames: " + "[" * 400 + "]" * 400 + "\n", "nested|names is"),
        ("train: images\nnames: " + "[" * 3000, "nested too deeply"),
    ],
)
def test_wrong_descriptions_are_refused_in_one_line(tmp_path, text, problem):
    put_image(tmp_path / "images" / "a.jpg")
    put(tmp_path / "labels" / "a.txt", "0 0.5 0.5 0.2 0.4\n")
    put(tmp_path / "data.yaml", text)
    with pytest.raises(DataError, match=problem) as caught:
        read_yolo(tmp_path / "data.yaml")
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "data.yaml") in str(caught.value) or "a.jpg" in str(caught.value)


def test_names_and_lists_that_are_no_text_are_refused(flat):
    (flat / "classes.txt").write_bytes(b"\xff\xfecar")
    with pytest.raises(DataError, match=r"cannot read .*classes\.txt"):
        read_yolo(flat)
    put(flat / "classes.txt", "car\nbus\n")
    (flat / "val.txt").write_bytes(b"a.jpg\n\xff.jpg\n")
    with pytest.raises(DataError, match=r"cannot read .*val\.txt"):
        read_yolo(flat, "val")
    (flat / "val.txt").write_bytes(b"a.jpg\nb\0.jpg\n")
    with pytest.raises(DataError, match=r"cannot read .*b.\.jpg"):
        read_yolo(flat, "val")


@pytest.mark.parametrize("line", ["0 nan 0.5 0.1 0.1 0.2 0.2", "0 inf -inf 1 1 2 2", "0 1e308 inf 1e308 1"])
def test_numbers_that_are_not_finite_are_dropped_without_a_warning_of_numpy(flat, line):
    put(flat / "b.txt", line + "\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_yolo(flat).num_objects == 2


def test_a_class_that_is_no_number_is_refused(flat):
    put(flat / "b.txt", "nan 0.5 0.5 0.1 0.1\n")
    with pytest.raises(DataError, match=r"b\.txt, line 1: class nan"):
        read_yolo(flat)
