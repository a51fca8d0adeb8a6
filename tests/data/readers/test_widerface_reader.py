"""WIDER FACE's files: text and MATLAB say the same, images without faces are real, wrong counts are told."""

from pathlib import Path

import numpy as np
import pytest

from facts import facts
from mat_cases import write_mat
from sniper.data.flags import ObjectFlag
from sniper.data.readers.widerface import read_wider
from sniper.data.source import DataSource, load_dataset
from sniper.data.splits import parts_of
from sniper.data.table import AnnotationTable
from sniper.errors import DataError
from wider_cases import IMAGES, write_images, write_mat_files, write_text_file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_text_file(tmp_path, "train", IMAGES[:1])
    write_text_file(tmp_path, "val")
    write_images(tmp_path, "train", IMAGES[:1])
    write_images(tmp_path, "val")
    return tmp_path


def assert_whole(table: AnnotationTable, root: Path) -> None:
    assert list(table.check().file_names) == ["0--Parade/a.jpg", "0--Parade/b.jpg", "61--Street/c.jpg"]
    assert (table.root, table.class_names, table.sizes_wh.tolist()) == (root, ("face",), [[100, 80]] * 3)
    assert table.offsets.tolist() == [0, 3, 3, 4]
    assert table.boxes_xyxy.tolist() == [[10, 10, 50, 60], [60, 10, 72, 22], [80, 60, 85, 66], [0, 0, 30, 30]]
    occluded = ObjectFlag.OCCLUDED
    assert table.flags.tolist() == [occluded, occluded, ObjectFlag.DIFFICULT, occluded]
    assert table.ignored.tolist() == [False, False, True, False]


def test_the_official_layout_is_found_by_looking(folder: Path) -> None:
    assert_whole(load_dataset(folder, "val"), folder / "WIDER_val" / "images")
    file = folder / "wider_face_split" / "wider_face_val_bbx_gt.txt"
    assert_whole(load_dataset(file), folder / "WIDER_val" / "images")
    assert [(part.path, part.split) for part in parts_of(folder)] == [(folder, "train"), (folder, "val")]
    train = DataSource(folder).open("train", needs_images=True)
    assert (len(train), train.root) == (1, folder / "WIDER_train" / "images")
    with pytest.raises(DataError, match=facts("does not say which split", "train, val", "split=")):
        load_dataset(folder)


def test_a_matlab_file_says_the_same(tmp_path: Path) -> None:
    root = write_images(tmp_path, "val")
    assert_whole(load_dataset(write_mat_files(tmp_path / "ground_truth") / "wider_face_val.mat"), root)
    assert_whole(load_dataset(tmp_path), root)


def test_images_that_are_not_there(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = folder / "WIDER_val" / "images"
    (root / "0--Parade" / "a.jpg").unlink()
    table = load_dataset(folder, "val").check()
    assert (list(table.file_names), table.num_objects) == (["0--Parade/b.jpg", "61--Street/c.jpg"], 1)
    assert "1 of 3 images are not in" in caplog.text
    for image in root.rglob("*.jpg"):
        image.unlink()
    caplog.clear()
    table = load_dataset(folder, "val").check()
    assert (len(table), table.sizes_wh[0].tolist()) == (3, [85, 66])
    assert "sizes of images are taken from their faces" in caplog.text
    with pytest.raises(DataError, match=facts("none of 3 images", "WIDER_val", "image_root=")):
        DataSource(folder, "val").open(needs_images=True)


def test_an_unreadable_image(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "WIDER_val" / "images" / "0--Parade" / "a.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"a\.jpg"):
        load_dataset(folder, "val")
    assert len(load_dataset(folder, "val", skip_bad_images=True)) == 2
    assert "1 unreadable images left out" in caplog.text


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("a.jpg\n3\n", "a.jpg\n4\n", ("line 6: expected face 4 of the 4 of 0--Parade/a.jpg", "0--Parade/b.jpg")),
        ("a.jpg\n3\n", "a.jpg\n2\n", ("line 5: expected the name of an image", "80 60 5 6", "said to have 2 faces")),
        ("a.jpg\n3\n", "a.jpg\n\n", ("line 2: expected the number of faces of 0--Parade/a.jpg",)),
        ("60 10 12 12 0", "60 10 twelve 12 0", ("line 4: expected ten numbers", "twelve")),
        ("60 10 12 12 0", "60 10", ("line 4: expected face 2 of the 3",)),
        ("0 0 30 30 0 0 0 0 1 0 \n", "", ("line 11: expected face 1 of the 1", "the end of the file")),
    ],
)
def test_counts_that_disagree_name_file_and_line(tmp_path: Path, old: str, new: str, said: tuple[str, ...]) -> None:
    file = write_text_file(tmp_path, "val")
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    with pytest.raises(DataError, match=facts("wider_face_val_bbx_gt.txt", *said)):
        read_wider(file)


def test_an_image_without_faces_with_and_without_its_line_of_zeros(tmp_path: Path) -> None:
    file = write_text_file(tmp_path, "val")
    file.write_text(file.read_text().replace("0 0 0 0 0 0 0 0 0 0 \n", ""))
    assert read_wider(file).offsets.tolist() == [0, 3, 3, 4]


def test_other_and_broken_matlab_files(tmp_path: Path) -> None:
    file = write_mat_files(tmp_path) / "wider_face_val.mat"
    file.write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(400))
    with pytest.raises(DataError, match=facts("wider_face_val.mat", "MATLAB", "version 5 to 7")):
        read_wider(file)
    write_mat(file, {"event_list": ["0--Parade"]})
    with pytest.raises(DataError, match="lacks file_list, face_bbx_list"):
        read_wider(file)
    box = np.array([[0, 0, 9, 9]], np.int32)
    lists = {"face_bbx_list": [[box]], "invalid_label_list": [[]], "occlusion_label_list": [[box[:, :1]]]}
    write_mat(file, {"event_list": ["0--Parade"], "file_list": [["a"]], **lists})
    with pytest.raises(DataError, match="the lists of event 1 do not agree"):
        read_wider(file)


def test_the_published_files(shared_data: Path) -> None:
    table = load_dataset(shared_data / "wider_eval" / "ground_truth").check()
    assert (len(table), table.class_names) == (3226, ("face",))
    assert 39_000 < table.num_objects < 40_000
