"""Pascal VOC folders."""

import pytest
from PIL import Image

from facts import facts
from sniper.data.flags import ObjectFlag
from sniper.data.readers.voc import read_voc
from sniper.errors import DataError

OBJECT = (
    "<object><name>{}</name>{}<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
)
SIZE = "<size><width>100</width><height>80</height><depth>3</depth></size>"


def put_page(folder, stem, objects, size=SIZE, file_name=None):
    (folder / "Annotations").mkdir(exist_ok=True)
    name = file_name or f"{stem}.jpg"
    text = f"<annotation>\n<filename>{name}</filename>{size}\n" + "".join(OBJECT.format(*o) for o in objects)
    (folder / "Annotations" / f"{stem}.xml").write_text(text + "</annotation>")


@pytest.fixture
def folder(tmp_path):
    put_page(
        tmp_path,
        "a",
        [
            ("dog", "", 1, 1, 100, 80),
            ("cat", "<difficult>1</difficult><truncated>1</truncated><occluded>0</occluded>", 11, 21, 30, 40),
        ],
    )
    put_page(tmp_path, "b", [])
    put_page(tmp_path, "c", [("ant", "<difficult>0</difficult><occluded>1</occluded>", 5.5, 6, 7, 8)])
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Main" / "train.txt").write_text("b\na  1\n")
    return tmp_path


def test_all_and_a_split(folder):
    table = read_voc(folder).check()
    assert table.class_names == ("ant", "cat", "dog")
    assert list(table.file_names) == ["a.jpg", "b.jpg", "c.jpg"]
    assert table.boxes_xyxy.tolist() == [[0, 0, 100, 80], [10, 20, 30, 40], [4.5, 5, 7, 8]]
    assert table.flags.tolist() == [0, ObjectFlag.DIFFICULT | ObjectFlag.TRUNCATED, ObjectFlag.OCCLUDED]
    assert table.ignored.tolist() == [False, True, False]
    assert not table.regions.any()
    assert table.root == folder / "JPEGImages"
    train = read_voc(folder, "train").check()
    assert train.class_names == table.class_names
    assert list(train.file_names) == ["b.jpg", "a.jpg"]
    assert train.offsets.tolist() == [0, 0, 2]


def test_clicks_are_empty_but_thin_objects_are_not(folder, caplog):
    put_page(folder, "a", [("dog", "", 7, 7, 7, 7), ("dog", "", 7, 7, 7, 9)])
    assert read_voc(folder, "train").check().boxes_xyxy.tolist() == [[6, 6, 7, 9]]
    assert "empty boxes dropped: 1" in caplog.text


def test_image_behind_another_name_or_without_a_size(folder):
    (folder / "JPEGImages").mkdir()
    Image.new("RGB", (33, 22)).save(folder / "JPEGImages" / "a.png")
    put_page(folder, "a", [("dog", "", 1, 1, 10, 10)], size="", file_name="old_name.jpg")
    table = read_voc(folder)
    assert table.file_name(0) == "a.png"
    assert table.sizes_wh[0].tolist() == [33, 22]
    put_page(folder, "b", [], size="")
    with pytest.raises(DataError, match=r"b\.jpg: No such file"):
        read_voc(folder)


def test_wrong_content_is_named(folder):
    with pytest.raises(DataError, match=facts("val", "ImageSets/Main", "train")):
        read_voc(folder, "val")
    put_page(folder, "b", [("", "", 1, 1, 2, 2)])
    with pytest.raises(DataError, match=facts("b.xml", "object 1", "name")):
        read_voc(folder)
    put_page(folder, "b", [("dog", "", 1, 1, 2, 2), ("dog", "", 1, "", 2, 2)])
    with pytest.raises(DataError, match=r"b\.xml: object 2 has corners"):
        read_voc(folder)
    put_page(folder, "b", [], size="<size><width>wide</width><height>2</height></size>")
    with pytest.raises(DataError, match=r"b\.xml: the size"):
        read_voc(folder)
    page = folder / "Annotations" / "b.xml"
    page.write_text("<annotation>\n<size>\n")
    with pytest.raises(DataError, match=r"b\.xml, line 3: damaged XML"):
        read_voc(folder)
    page.unlink()
    with pytest.raises(DataError, match=r"lacks b\.xml of split 'train'"):
        read_voc(folder, "train")
    with pytest.raises(DataError, match=facts("no annotation files", "Annotations", "xml")):
        read_voc(folder / "ImageSets")
    for file in (folder / "Annotations").iterdir():
        file.unlink()
    with pytest.raises(DataError, match="no annotation files"):
        read_voc(folder)


@pytest.mark.parametrize("side", [str(2**70), "inf", "1e308", str(2**31), str(2**32 + 5)])
def test_a_size_that_no_image_has_is_refused(folder, side):  # found by benchmarks/fuzz.py
    put_page(folder, "b", [], size=f"<size><width>{side}</width><height>2</height></size>")
    with pytest.raises(DataError, match=r"b\.xml: the size"):
        read_voc(folder)


@pytest.mark.parametrize("encoding", ["foo", "gb2312", "rot13"])
def test_pages_and_lists_in_other_encodings_are_refused(folder, encoding):
    (folder / "Annotations" / "b.xml").write_text(f'<?xml version="1.0" encoding="{encoding}"?><annotation/>')
    with pytest.raises(DataError, match=r"b\.xml.*write the file again as UTF-8"):
        read_voc(folder)
    (folder / "ImageSets" / "Main" / "train.txt").write_bytes(b"a\n\xff\n")
    with pytest.raises(DataError, match=r"cannot read .*train\.txt"):
        read_voc(folder, "train")


def test_blood_cells(shared_data, caplog):
    table = read_voc(shared_data / "bccd").check()
    assert (len(table), table.num_objects) == (364, 4886)
    assert table.class_names == ("Platelets", "RBC", "WBC")
    assert "empty boxes dropped: 2" in caplog.text
    sizes = [len(read_voc(shared_data / "bccd", split)) for split in ("train", "val", "test", "trainval")]
    assert sizes == [205, 87, 72, 292]
