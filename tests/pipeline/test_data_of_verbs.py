"""Every verb that reads data takes the same words, and means the same split of it."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from trained_run import Trained

from facts import facts
from layouts import LAYOUTS, TRAIN, VAL, coco_elsewhere, kangaroo, ultralytics
from rectangle_set import CLASSES, TINY, make_set
from sniper.data.source import DataSource
from sniper.errors import DataError
from sniper.pipeline.chips import chip_stats
from sniper.pipeline.evaluate import evaluate
from sniper.pipeline.tables import table_for
from sniper.pipeline.train import train
from sniper.recipe import Recipe

FAST = [argument for setting in [*TINY, "train.steps=1"] for argument in ("--set", setting)]


def _has_val(name: str) -> bool:
    return name in ("playing_cards", "ultralytics", "coco_elsewhere")


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_first_run_is_one_command(
    sniper: Callable[..., object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    data = LAYOUTS[name](tmp_path / "data")
    where = ["--images", tmp_path / "data" / "pictures"] if name == "coco_elsewhere" else []
    val = ["--val", data] if _has_val(name) else []
    done = sniper("--verbose", "train", "mobilenetv2", *FAST, "--data", data, *val, *where)
    assert done.code == 0, done.lines
    read = [line for line in done.lines if line.endswith(" objects") and str(tmp_path) in line]
    assert [int(re.search(r": (\d+) images", line)[1]) for line in read] == ([TRAIN, VAL] if val else [TRAIN])
    kept = Recipe.load(Path("runs/train/train/recipe.yaml")).data
    assert Path(kept.train) == data


def test_each_verb_takes_the_words_of_a_dataset(
    sniper: Callable[..., object], trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = coco_elsewhere(tmp_path / "data")
    model = trained.run.folder
    for verb in (["evaluate", model], ["propose", model, "-o", "p.safetensors"], ["chips", "preview"]):
        at = verb.index(model) + 1 if model in verb else len(verb)
        command = [*verb[:at], data, *verb[at:]]
        missing = sniper(*command)
        assert missing.code == 2
        assert "--images" in missing.lines[-1], missing.lines
        assert str(data / "annotations") in missing.lines[-1]
        words = ["--images", tmp_path / "data" / "pictures", "--format", "coco", "--split", "val", "--classes", "red"]
        done = sniper(*command, *words)
        assert done.code == 0, done.lines
    words[words.index("--split") : words.index("--classes")] = []
    for verb in (["check", data], ["convert", data, "--to", "yolo", "-o", "as-yolo"]):
        done = sniper(*verb, *words)
        assert done.code in (0, 1), done.lines
    assert (tmp_path / "as-yolo" / "data.yaml").read_text().count("red") == 1
    wrong = sniper("chips", "stats", data, "--format", "xml")
    assert wrong.code == 2
    assert "--format takes coco, yolo, voc, openimages, wider, imagenet, got 'xml'" in wrong.lines[-1]
    (tmp_path / "names.txt").write_text("red\nviolet\n")
    wrong = sniper("chips", "stats", data, "--classes", "names.txt")
    assert "class 'violet' is not in the dataset" in wrong.lines[-1]


def test_messages_name_the_options_of_the_second_dataset(
    sniper: Callable[..., object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data, val = kangaroo(tmp_path / "data"), coco_elsewhere(tmp_path / "val")
    command = ["train", "mobilenetv2", *FAST, "--data", data, "--val", val]
    done = sniper(*command)
    assert done.code == 2
    assert "--val-images (data.evaluate_image_root)" in done.lines[-1]
    done = sniper(*command, "--val-split", "night")
    assert "--val-split (data.evaluate_split)" in done.lines[-1]
    done = sniper(
        *command, "--val-images", tmp_path / "val" / "pictures", "--val-split", "train", "--val-format", "coco"
    )
    assert done.code == 0, done.lines


def test_python_functions_mean_the_same_splits(tmp_path: Path, trained: Trained) -> None:
    yaml = ultralytics(tmp_path / "set")
    assert len(evaluate(trained.run.folder, yaml).detections) == VAL
    assert len(table_for(CLASSES, DataSource(yaml, "train"))) == TRAIN
    assert len(table_for(CLASSES, yaml, role="train")) == TRAIN
    assert chip_stats("mobilenetv2", yaml).images == TRAIN


def _empty(name: str, folder: Path) -> Path:
    if name == "coco":
        made = make_set(folder)
        made.write_text(json.dumps(json.loads(made.read_text()) | {"annotations": []}))
        return made
    made = make_set(folder, "yolo")
    for label in (made.parent / "labels").iterdir():
        numbers = [line.split() for line in label.read_text().splitlines()]
        scaled = [
            [n[0], *(str(float(x) * size) for x, size in zip(n[1:], (160, 120) * 2, strict=True))] for n in numbers
        ]
        label.write_text("\n".join(map(" ".join, scaled)))
    return made


@pytest.mark.parametrize("name", ["coco", "yolo in pixels"])
def test_training_and_evaluation_on_no_objects_are_refused(tmp_path: Path, name: str) -> None:
    empty, full = _empty(name, tmp_path / "empty"), make_set(tmp_path / "full")
    said = "pixels" if "pixels" in name else facts(6, "no object")
    for data, val in ((empty, None), (full, empty)):
        with pytest.raises(DataError, match=said):
            train("mobilenetv2", overrides=[*TINY, "train.steps=1"], data=data, val=val, root=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_labels_without_class_names(tmp_path: Path, trained: Trained, caplog: pytest.LogCaptureFixture) -> None:
    made = make_set(tmp_path / "set", "yolo").parent
    (made / "data.yaml").unlink()
    expected = table_for(CLASSES, DataSource(made, classes=CLASSES)).labels.tolist()
    assert caplog.text == ""
    assert table_for(CLASSES, made).labels.tolist() == expected
    assert "has no class names; its numbers are taken for the detector's classes: blue, green, red" in caplog.text
    (made / "classes.txt").write_text("red\nblue\ngreen\n")
    other = table_for(CLASSES, made).labels.tolist()
    assert other == [(label - 1) % 3 for label in expected], "the file's own order, not the detector's"


def test_chosen_classes_are_all_that_is_measured(tmp_path: Path, trained: Trained) -> None:
    red = table_for(CLASSES, DataSource(trained.val_json, classes=("red",)))
    assert red.class_names == CLASSES
    assert set(red.labels.tolist()) == {2}


def test_a_run_goes_on_from_any_folder(tmp_path: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    make_set(tmp_path / "set")
    make_set(tmp_path / "val", images=3)
    monkeypatch.chdir(tmp_path)
    weights = os.path.relpath(trained.run.folder / "last.safetensors")
    overrides = [*TINY, "train.steps=1", f"weights={weights}"]
    run = train("mobilenetv2", overrides=overrides, data="set/set.json", val=Path("val/set.json"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = train(resume=tmp_path / run.folder, overrides=["train.steps=2"])
    assert again.result.finished
    assert again.recipe.data.evaluate == str(tmp_path / "val" / "set.json")
    assert Path(str(again.recipe.weights)).samefile(trained.run.folder / "last.safetensors")
