"""``sniper chips export``: chips as files, read back by our own readers, and back on their images."""

import json
import signal
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from facts import facts
from forked import Python
from rectangle_set import make_set
from sniper.data.flags import ObjectFlag
from sniper.data.source import load_dataset
from sniper.data.table import AnnotationTable
from sniper.errors import DataError, RecipeError, StorageError
from sniper.loader.image_chips import objects_in_chip
from sniper.pipeline.chip_dataset import ChipDataset
from sniper.pipeline.chip_export import Ignored, To, export_chips, prepare_export
from sniper.pixels.resample import BORDER_RGB
from sniper.recipe import Recipe
from sniper.structures import ObjectState
from test_readme import code_behind

PAGE = Path(__file__).parents[2] / "docs" / "chips_for_other_trainers.md"

TWO_LEVELS = {
    "levels": [{"scale": 1.7, "train_range_px": [0, 18]}, {"scale": 0.9, "train_range_px": [14, None]}],
    "chip_px": 96,
}


def _recipe(*overrides: str) -> Recipe:
    return Recipe.parse({"pyramid": TWO_LEVELS}).changed(["loader.workers=0", *overrides])


def _scene(folder: Path, seed: int, count: int) -> AnnotationTable:
    """Two images of noise with ``count`` random boxes each, at fractions of a pixel; every fifth a crowd."""
    rng = np.random.default_rng(seed)
    for name in ("a.png", "b.png"):
        Image.fromarray(rng.integers(0, 255, (90, 140, 3), dtype=np.uint8)).save(folder / name)
    low = rng.uniform(0, (110, 60), (2 * count, 2))
    boxes = np.concatenate([low, low + rng.uniform(2.5, 30, (2 * count, 2))], axis=1).astype(np.float32)
    return AnnotationTable(
        root=folder,
        file_names=["a.png", "b.png"],
        image_ids=np.asarray([7, 9]),
        sizes_wh=np.asarray([[140, 90]] * 2, np.int32),
        offsets=np.asarray([0, count, 2 * count]),
        boxes_xyxy=boxes,
        labels=np.arange(2 * count, dtype=np.int32) % 3,
        flags=np.where(np.arange(2 * count) % 5 == 4, np.uint8(ObjectFlag.CROWD), np.uint8(0)),
        areas=np.prod(boxes[:, 2:] - boxes[:, :2], axis=1),
        annotation_ids=np.arange(2 * count),
        class_names=("x", "y", "z"),
        class_ids=np.asarray([3, 5, 8]),
    ).check()


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**31), count=st.integers(1, 40), to=st.sampled_from(["coco", "yolo"]))
def test_what_is_read_back_is_what_the_chips_show(seed: int, count: int, to: To) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table = _scene(folder, seed, count)
        prepared = prepare_export(table, to=to, output=folder / "out", recipe=_recipe())
        done = prepared.write()
        back = load_dataset(done.data).check()
        chips, manifest = prepared.parts["train"].chips(0), json.loads((folder / "out" / "chips.json").read_text())
        assert back.class_names == table.class_names
        assert len(back) == len(chips) == done.chips["train"] == len(prepared)
        records = manifest["parts"]["train"]["chips"]
        files = {Path(back.file_name(row)).name: row for row in range(len(back))}
        for chip, record in enumerate(records):
            objects = objects_in_chip(table, chips, chip)
            valid = objects.state == ObjectState.VALID
            wanted = valid | (to == "coco")
            row = files[Path(record["file"]).name]
            part = back.objects(row)
            assert np.array_equal(back.boxes_xyxy[part], objects.boxes[wanted])
            assert np.array_equal(back.labels[part], table.labels[objects.rows][wanted])
            assert np.array_equal(back.flags[part] == 0, valid[wanted])
            assert tuple(back.sizes_wh[row]) == (96, 96)
            # Back on the image: what the chip shows of each box.
            there = (back.boxes_xyxy[part] + np.tile(record["origin_xy"], 2)) / record["scale"]
            whole, window = table.boxes_xyxy[objects.rows[wanted]], np.asarray(record["window_xyxy"])
            shown = np.clip(whole, np.tile(window[:2], 2), np.tile(window[2:], 2))
            np.testing.assert_allclose(there, shown, atol=1e-4)
            assert (record["image"], record["image_id"]) in (("a.png", 7), ("b.png", 9))


@pytest.mark.parametrize(("to", "ignored"), [("coco", "crowd"), ("coco", "drop"), ("yolo", "blank")])
def test_pixels_are_those_of_the_dataset(tmp_path: Path, to: To, ignored: Ignored) -> None:
    table = _scene(tmp_path, 3, 12)
    done = export_chips(table, to=to, output=tmp_path / "out", recipe=_recipe(), ignored=ignored, lossless=True)
    chips = ChipDataset(
        table, TWO_LEVELS, overrides=["augment.horizontal_flip=0"], form="coco",
        ignored="blank" if ignored == "blank" else "keep",
    )  # fmt: skip
    records = json.loads((done.folder / "chips.json").read_text())["parts"]["train"]["chips"]
    assert len(records) == len(chips)
    for row, record in enumerate(records):
        written = cv2.imread(str(done.folder / record["file"]))[..., ::-1]
        assert np.array_equal(written, chips[row][0].numpy().transpose(1, 2, 0))
        width, height = record["valid_wh"]
        assert (written[height:] == BORDER_RGB).all()
        assert (written[:, width:] == BORDER_RGB).all()
    back = load_dataset(done.data)
    assert back.ignored.any() == (ignored == "crowd")
    assert done.objects["train"] == int((~back.ignored).sum())


@pytest.mark.parametrize("to", ["coco", "yolo"])
def test_two_parts_share_levels_and_classes(tmp_path: Path, to: To) -> None:
    train = make_set(tmp_path / "train", images=3)
    val = make_set(tmp_path / "val", images=2, seed=1, classes=("red", "blue"))
    done = export_chips(train, to=to, output=tmp_path / "out", recipe=_recipe(), val=val)
    assert set(done.chips) == {"train", "val"}
    for name in done.chips:
        part = load_dataset(done.folder / f"{name}.json") if to == "coco" else load_dataset(done.data, name)
        assert len(part) == done.chips[name]
        assert part.class_names == ("blue", "green", "red")
        assert int((~part.ignored).sum()) == done.objects[name]


def test_a_folder_is_whole_or_not_there(tmp_path: Path) -> None:
    data = make_set(tmp_path / "set", images=4)
    (tmp_path / "set" / "images" / "2.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match=facts("2.png")):
        export_chips(data, to="coco", output=tmp_path / "out", recipe=_recipe())
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    done = export_chips(data, to="coco", output=tmp_path / "out", recipe=_recipe("loader.on_bad_image=skip"))
    assert [Path(file).name for file, _ in done.skipped] == ["2.png"]
    assert len(load_dataset(done.data)) == done.chips["train"]
    with pytest.raises(StorageError, match="out exists and is not empty"):
        export_chips(data, to="yolo", output=tmp_path / "out", recipe=_recipe())


def test_wrong_words_are_refused(tmp_path: Path) -> None:
    data = make_set(tmp_path / "set", images=2)
    with pytest.raises(RecipeError, match=facts("--to", "coco", "yolo", "voc")):
        export_chips(data, to="voc", output=tmp_path / "out")  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match=facts("--ignored", "blank", "drop", "yolo", "crowd")):
        export_chips(data, to="yolo", output=tmp_path / "out", ignored="crowd")


def test_the_verb_writes_a_dataset(python: Python, tmp_path: Path) -> None:
    data = make_set(tmp_path / "set", images=6)
    settings = ["--set", f"pyramid.levels={json.dumps(TWO_LEVELS['levels'])}", "--set", "pyramid.chip_px=96"]
    words = ["-m", "sniper", "chips", "export", str(data), "--to", "yolo", *settings]
    said = python.run(*words, "-o", str(tmp_path / "out"))
    assert said.returncode == 0, said.stderr
    assert "data.yaml" in said.stdout
    assert len(load_dataset(tmp_path / "out" / "data.yaml")) > 6


def test_ctrl_c_leaves_nothing(python: Python, tmp_path: Path) -> None:
    data = make_set(tmp_path / "set", images=400)  # a second of work, so that it is stopped in the middle
    words = ["chips", "export", data, "--to", "coco", "--set", "pyramid.chip_px=96", "--set", "loader.workers=0"]
    running = python.start("-m", "sniper", *words, "-o", tmp_path / "out")
    until = time.monotonic() + 60
    while not any(tmp_path.glob(".out.*.part/images/train/*")) and time.monotonic() < until:
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    said = running.finish(60)
    assert said.returncode == 130, said.stderr
    assert "Traceback" not in said.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_the_documentation_leads_detections_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lines, on the objects of the chips as if they had been found: all lie on objects of the images."""
    data = make_set(tmp_path / "set", images=3)
    done = export_chips(data, to="coco", output=tmp_path / "chips", recipe=_recipe(), val=data)
    document = json.loads((done.folder / "val.json").read_text())
    results = [dict(one, score=1.0) for one in document["annotations"] if not one["iscrowd"]]
    (tmp_path / "results.json").write_text(json.dumps(results))
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(code_behind("example: back to the images", PAGE), names)
    true = json.loads(data.read_text())["annotations"]
    assert len(names["results"]) == done.objects["val"] > 0
    for found in names["results"]:
        near = [one for one in true if np.allclose(one["bbox"], found["bbox"], atol=1e-3)]
        assert [(one["image_id"], one["category_id"]) for one in near] == [(found["image_id"], found["category_id"])]
