"""ImageNet: folders by synset with some boxes, and ILSVRC archives."""

from pathlib import Path

import pytest
from PIL import Image

from facts import facts
from sniper.data.readers.imagenet import read_imagenet
from sniper.data.source import DataSource, load_dataset
from sniper.errors import DataError

TENCH, CRANE, OTHER_CRANE = "n01440764", "n02012849", "n03126707"
OBJECT = "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"


def put_image(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (100, 80)).save(file, "JPEG")


def put_page(file: Path, *objects: tuple[str, int, int, int, int]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    size = "<size><width>100</width><height>80</height><depth>3</depth></size>"
    inside = "".join(OBJECT.format(*one) for one in objects)
    file.write_text(f"<annotation><filename>%s</filename>{size}{inside}</annotation>")


@pytest.fixture
def by_synset(tmp_path: Path) -> Path:
    """Two synsets; the second image of one has no boxes, and a file of boxes has no image."""
    for synset, number in ((TENCH, 1), (TENCH, 2), (CRANE, 1)):
        put_image(tmp_path / synset / f"{synset}_{number}.JPEG")
    pages = tmp_path / "Annotation"
    put_page(pages / TENCH / f"{TENCH}_1.xml", (TENCH, 0, 10, 99, 79), (CRANE, 5, 5, 14, 24))
    put_page(pages / CRANE / f"{CRANE}_1.xml", (CRANE, 50, 40, 100, 80))
    put_page(pages / CRANE / f"{CRANE}_9.xml", (CRANE, 0, 0, 9, 9))
    return tmp_path


def test_corners_count_from_zero_and_images_without_boxes_are_left_out(by_synset: Path, caplog) -> None:
    table = read_imagenet(by_synset).check()
    assert table.class_names == (TENCH, CRANE)
    assert sorted(table.file_names) == [f"{TENCH}/{TENCH}_1.JPEG", f"{CRANE}/{CRANE}_1.JPEG"]
    row = list(table.file_names).index(f"{TENCH}/{TENCH}_1.JPEG")
    assert table.boxes_xyxy[table.objects(row)].tolist() == [[0, 10, 100, 80], [5, 5, 15, 25]]
    # A corner at the width is the last pixel, as many of its files write it.
    assert table.boxes_xyxy[table.objects(1 - row)].tolist() == [[50, 40, 100, 80]]
    assert table.image_path(row).is_file()
    assert "1 images have no file of boxes" in caplog.text
    assert f"1 files of boxes have no image in {by_synset}" in caplog.text
    assert "clipped" not in caplog.text


def test_a_plain_list_of_classes_names_them_and_leaves_others_out(by_synset: Path, caplog) -> None:
    (by_synset / "synset_words.txt").write_text(f"{CRANE} crane, bird\n{OTHER_CRANE}\tcrane, machine\n")
    table = load_dataset(by_synset).check()
    assert table.class_names == ("crane", f"crane ({OTHER_CRANE})")
    assert table.labels.tolist() == [0, 0]
    assert "1 of 3 objects are of synsets that the list of classes lacks" in caplog.text


def test_an_archive_of_the_challenge_with_splits(tmp_path: Path) -> None:
    root = tmp_path / "ILSVRC"
    put_image(root / "Data" / "DET" / "train" / "ILSVRC2013_train" / TENCH / f"{TENCH}_1.JPEG")
    put_page(
        root / "Annotations" / "DET" / "train" / "ILSVRC2013_train" / TENCH / f"{TENCH}_1.xml", (TENCH, 1, 2, 3, 4)
    )
    put_image(root / "Data" / "DET" / "val" / "ILSVRC2012_val_00000001.JPEG")
    put_page(root / "Annotations" / "DET" / "val" / "ILSVRC2012_val_00000001.xml")
    (tmp_path / "LOC_synset_mapping.txt").write_text(f"{TENCH} tench, Tinca tinca\n{CRANE} crane\n")
    for place in (tmp_path, root, root / "Data" / "DET"):
        train = DataSource(place).open("train", needs_images=True)
        assert (train.num_objects, train.class_names) == (1, ("tench", "crane"))
    val = DataSource(tmp_path).open("evaluate", needs_images=True)
    assert (list(val.file_names), val.num_objects) == (["ILSVRC2012_val_00000001.JPEG"], 0)
    with pytest.raises(DataError, match=facts("no split 'test'", "train, val", "split=")):
        read_imagenet(tmp_path, "test")
    put_page(root / "Annotations" / "CLS-LOC" / "val" / "x.xml")
    with pytest.raises(DataError, match=facts(root, "DET and CLS-LOC", root / "Data" / "DET")):
        load_dataset(tmp_path)


@pytest.mark.parametrize(
    ("line", "said"),
    [("tench", "'tench' is no synset"), (f"{CRANE} again", f"'{CRANE}' comes a second time")],
)
def test_damaged_lists_and_folders_without_boxes_are_refused(by_synset: Path, line: str, said: str) -> None:
    words = by_synset / "synset_words.txt"
    words.write_text(f"{CRANE} crane\n\n{line}\n")
    with pytest.raises(DataError, match=facts(words, "entry 2", said, "n01440764 tench")):
        read_imagenet(by_synset)
    words.unlink()
    with pytest.raises(DataError, match=facts(by_synset, "none of 3 XML files", "--images")):
        DataSource(by_synset, images=by_synset / "Annotation", options=OPTIONS).open()


OPTIONS = DataSource(".").options._replace(images="--images")
