"""Data as their publishers zip them: found without an option, and the split that each verb means."""

import json

import pytest
from PIL import Image

from facts import facts
from layouts import LAYOUTS, TRAIN, VAL, coco_elsewhere, kangaroo, playing_cards, ultralytics
from rectangle_set import CLASSES, make_set
from sniper.data.options import OptionNames
from sniper.data.source import DataSource, load_dataset
from sniper.errors import DataError

VERB = OptionNames("--split", "--format", "--images", "--classes")


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_read(tmp_path, name):
    place = LAYOUTS[name](tmp_path / "data")
    images = tmp_path / "data" / "pictures" if name == "coco_elsewhere" else None
    table = DataSource(place, images=images).open("train", needs_images=True).check()
    assert table.class_names == CLASSES
    assert (len(table), table.num_objects) == (TRAIN, 4 * (TRAIN - 1))
    assert all(table.image_path(row).is_file() for row in range(len(table)))
    if name in ("playing_cards", "ultralytics", "coco_elsewhere"):
        assert len(DataSource(place, images=images).open("evaluate")) == VAL


def test_voc_folders_have_any_case_and_any_of_the_usual_names(tmp_path):
    for number, (pages, images) in enumerate(
        [("ANNOTATIONS", "jpegimages"), ("xml", "Images"), ("annotations/xmls", "images"), (".", "."), ("a", "a")]
    ):
        made = make_set(tmp_path / str(number), "voc", images=2)
        for before, after in (("Annotations", pages), ("JPEGImages", images)):
            (made / after).mkdir(parents=True, exist_ok=True)
            for file in list((made / before).iterdir()):
                file.rename(made / after / file.name)
            if (made / before).is_dir() and not any((made / before).iterdir()):
                (made / before).rmdir()
        place = made / "a" if pages == "a" else made
        table = load_dataset(place)
        assert len(table) == 2
        assert all(table.image_path(row).is_file() for row in range(2))


def test_paths_of_another_machine_inside_the_xml(tmp_path):
    place = kangaroo(tmp_path)
    page = place / "annots" / "0.xml"
    page.write_text(page.read_text().replace("0.png", r"C:\Users\me\pictures\0.png"))
    assert load_dataset(place).image_path(0) == place / "images" / "0.png"


def test_training_means_train_and_evaluation_val_or_test(tmp_path):
    yaml = ultralytics(tmp_path / "a")
    assert len(DataSource(yaml).open("train")) == TRAIN
    assert len(DataSource(yaml).open("evaluate")) == VAL
    assert len(DataSource(yaml, "train").open("evaluate")) == TRAIN, "a split that is named counts"
    text = yaml.read_text()
    yaml.write_text(text.replace("val: images/val", "test: images/val").replace("test:  # none\n", ""))
    assert len(DataSource(yaml).open("evaluate")) == VAL
    yaml.write_text(text.replace("val: images/val", "valid: images/val"))
    assert len(DataSource(yaml).open("evaluate")) == VAL
    yaml.write_text(text.replace("val: images/val\n", ""))
    with pytest.raises(DataError, match=facts("data.yaml", "train", "val or test", "split")):
        DataSource(yaml, options=VERB).open("evaluate")
    yaml.unlink()
    folder = DataSource(yaml.parent, classes=CLASSES)
    assert [len(folder.open(role)) for role in ("train", "evaluate", None)] == [TRAIN, VAL, TRAIN + VAL]


def test_folders_and_lists_of_splits(tmp_path):
    coco = coco_elsewhere(tmp_path / "coco")
    assert [len(DataSource(coco).open(role)) for role in ("train", "evaluate")] == [TRAIN, VAL]
    (coco / "annotations" / "instances_train2017.json").unlink()
    with pytest.raises(DataError, match=facts("train", "val", "split")):
        DataSource(coco).open("train")
    cards = playing_cards(tmp_path / "cards")
    (cards / "test").rename(cards / "Valid")
    assert [len(DataSource(cards).open(role)) for role in ("train", "evaluate")] == [TRAIN, VAL]
    assert len(DataSource(cards, "validation").open("evaluate")) == VAL
    with pytest.raises(DataError, match=facts("night", "Valid", "train", "--split")):
        DataSource(cards, "night", options=VERB).open("train")
    voc = make_set(tmp_path / "voc", "voc")
    (voc / "ImageSets" / "Main").mkdir(parents=True)
    for name, stems in (("trainval", "0 1 2"), ("test", "3 4 5"), ("blue_test", "3 -1")):
        (voc / "ImageSets" / "Main" / f"{name}.txt").write_text("\n".join(stems.split()))
    assert list(DataSource(voc).open("train").file_names) == ["0.png", "1.png", "2.png"]
    assert list(DataSource(voc).open("evaluate").file_names) == ["3.png", "4.png", "5.png"]
    flat = make_set(tmp_path / "flat", "voc")
    assert len(DataSource(flat).open("evaluate")) == TRAIN, "without splits, all"


def test_where_images_are_not_found_the_folders_are_named(tmp_path):
    place = coco_elsewhere(tmp_path / "coco")
    missing = DataSource(place, options=VERB)
    assert len(missing.open("train")) == TRAIN, "annotations alone can be looked at"
    with pytest.raises(DataError, match=facts(6, "train-0.png", str(place), str(place / "annotations"), "--images")):
        missing.open("train", needs_images=True)
    voc = kangaroo(tmp_path / "voc")
    (voc / "images").rename(voc / "elsewhere")
    with pytest.raises(DataError, match=facts("0.png", str(voc / "annots"), "--images")):
        DataSource(voc, options=VERB).open("train", needs_images=True)
    found = DataSource(voc, images=voc / "elsewhere").open("train", needs_images=True)
    assert found.image_path(0).is_file()


def test_yolo_labels_stay_where_they_are_when_images_are_elsewhere(tmp_path):
    made = make_set(tmp_path / "set", "yolo").parent
    (made / "data.yaml").unlink()
    (made / "images").rename(tmp_path / "pictures")
    source = DataSource(made, format="yolo", images=tmp_path / "pictures", classes=CLASSES)
    assert source.open("train", needs_images=True).num_objects == 20


def test_a_coco_file_in_a_split_folder_and_one_whose_first_image_is_missing(tmp_path):
    for split in ("train", "valid"):
        made = make_set(tmp_path / "set" / split, images=3)
        made.rename(made.with_name("_annotations.coco.json"))
    assert len(DataSource(tmp_path / "set").open("train")) == 3
    table = DataSource(tmp_path / "set").open("evaluate", needs_images=True)
    assert table.root == tmp_path / "set" / "valid" / "images"
    (table.root / table.file_name(0)).unlink()
    assert load_dataset(tmp_path / "set", "valid").root == table.root


def test_a_mark_at_the_beginning_of_a_file_is_no_part_of_it(tmp_path):
    made = make_set(tmp_path / "coco")
    text = made.read_text()
    made.write_text(text, encoding="utf-8-sig")
    assert len(load_dataset(made)) == TRAIN
    made.write_text(text[:-50], encoding="utf-8-sig")
    with pytest.raises(DataError, match="ends in the middle"):
        load_dataset(made)
    yolo = make_set(tmp_path / "yolo", "yolo").parent
    (yolo / "data.yaml").unlink()
    (yolo / "classes.txt").write_text("blue\ngreen\nred\n", encoding="utf-8-sig")
    label = yolo / "labels" / "0.txt"
    label.write_text(label.read_text(), encoding="utf-8-sig")
    assert load_dataset(yolo).class_names == CLASSES


def test_class_names_given_twice_are_refused(tmp_path):
    made = make_set(tmp_path / "coco")
    document = json.loads(made.read_text())
    document["categories"][2]["name"] = "blue"
    made.write_text(json.dumps(document))
    with pytest.raises(DataError, match=facts("set.json", 10, 30, "blue")):
        load_dataset(made)
    Image.new("RGB", (9, 9)).save(tmp_path / "a.jpg")
    (tmp_path / "a.txt").write_text("0 0.5 0.5 0.5 0.5")
    (tmp_path / "classes.txt").write_text("car\nbus\ncar\n")
    with pytest.raises(DataError, match=facts("classes.txt", 0, 2, "car")):
        load_dataset(tmp_path, format="yolo")
