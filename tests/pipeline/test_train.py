"""Training from a recipe to a run folder: what it leaves, resuming, other samplers, other detectors, bad images."""

import csv
import json
import logging
import os
import signal
from pathlib import Path

import cv2
import pytest
import torch
from own_detector import Cells
from torch import Tensor, nn
from trained_run import Trained

from devices import DEVICE, bit_for_bit
from facts import facts
from rectangle_set import CLASSES, TINY, make_set
from sniper import progress
from sniper.data.source import load_dataset
from sniper.errors import CheckpointError, DataError, RecipeError
from sniper.pipeline.chips import chip_preview, chip_stats
from sniper.pipeline.evaluate import evaluate
from sniper.pipeline.model import load_model
from sniper.pipeline.predict import predict
from sniper.pipeline.train import train
from sniper.recipe import Recipe
from sniper.structures import Batch, Detections, Images
from sniper.training.checkpoint import load_weights
from sniper.training.run import RunFolder


def test_a_run_folder_tells_its_own_story(trained: Trained) -> None:
    run, folder = trained.run, trained.run.folder
    assert folder.name == "train"
    assert folder.parent.name == "train"
    assert run.result.finished
    assert run.result.step == 4
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "recipe.yaml", "log.txt", "metrics.csv", "curves.png", "pr_curves.png", "previews", "state.pt",
        "last.safetensors", "best.safetensors", "predictions.json", "metrics.json",
        "index.html",
    }  # fmt: skip
    recipe = Recipe.load(folder / "recipe.yaml")
    assert recipe == run.recipe
    assert recipe.pyramid.levels != "auto"
    assert recipe.pyramid.chip_px == 128
    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    assert [row["step"] for row in rows if row["loss"]] == ["1", "2", "3", "4"]
    assert {"rpn_class", "class"} <= {name.removeprefix("loss/") for name in rows[0]}
    assert [row["step"] for row in rows if row["eval/AP"]] == ["4"]
    previews = sorted((folder / "previews").iterdir())
    assert len(previews) == 8, "two pictures each of the four busiest images"
    for picture in (folder / "curves.png", folder / "pr_curves.png", *previews):
        assert cv2.imread(str(picture)) is not None
    assert "finished at step 4" in (folder / "log.txt").read_text()


def test_predictions_are_what_the_coco_server_takes(trained: Trained) -> None:
    from pycocotools.coco import COCO

    entries = json.loads((trained.run.folder / "predictions.json").read_text())
    assert entries
    assert {entry["category_id"] for entry in entries} <= {10, 20, 30}
    assert {entry["image_id"] for entry in entries} <= {100, 101, 102}
    COCO(str(trained.val_json)).loadRes(str(trained.run.folder / "predictions.json"))


def test_checkpoints_know_what_they_are(trained: Trained) -> None:
    run = trained.run
    assert run.checkpoint == run.folder / "best.safetensors"
    for path in (run.folder, run.checkpoint, str(run.folder / "last.safetensors")):
        model = load_model(path, device=DEVICE)
        assert model.class_names == CLASSES
        assert model.class_ids == (10, 20, 30)
        assert model.recipe == run.recipe
        assert model.pyramid.levels == run.recipe.pyramid.levels
        assert not model.detector.training
    assert run.evaluation is not None
    again = evaluate(run.folder, trained.val_json, device=DEVICE)
    assert again.result.as_dict() == run.evaluation.result.as_dict()
    assert again.pixels_per_image == run.evaluation.pixels_per_image > 0


def test_the_scores_to_draw_by_are_kept_in_the_checkpoint(trained: Trained) -> None:
    evaluation = trained.run.evaluation
    assert evaluation is not None
    assert len(evaluation.draw_scores) == len(CLASSES)
    for name in ("best.safetensors", "last.safetensors"):
        assert load_weights(trained.run.folder / name).meta.draw_scores == evaluation.draw_scores
    assert load_model(trained.run.folder, device=DEVICE).draw_scores == evaluation.draw_scores
    kept = json.loads((trained.run.folder / "metrics.json").read_text())["best_f1"]
    assert {name: one["score"] for name, one in kept.items()} == dict(zip(CLASSES, evaluation.draw_scores, strict=True))
    assert evaluate(trained.run.folder, trained.val_json, device=DEVICE).draw_scores == evaluation.draw_scores


def test_an_evaluation_tells_how_far_it_is(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress, "INTERVAL_S", 0.0)
    caplog.set_level(logging.INFO, "sniper")
    overrides = [*TINY, "train.steps=1", f"data.train={trained.train_json}", f"data.evaluate={trained.val_json}"]
    run = train("mobilenetv2", overrides=overrides, root=tmp_path)
    assert any("evaluating images: 1 of 3, " in line for line in caplog.messages)
    assert "evaluating images: 2 of 3, " in (run.folder / "log.txt").read_text()


def test_checkpoints_that_cannot_be_used(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=facts("best.safetensors", "last.safetensors")):
        load_model(tmp_path)
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load_model(tmp_path / "none.safetensors")
    with pytest.raises(RecipeError, match=facts("'gpu'", "auto", "cpu")):
        load_model(trained.run.folder, device="gpu")
    with pytest.raises(RecipeError, match=facts("Linear", "losses", "detect")):
        load_model(trained.run.folder, detector=nn.Linear(1, 1))
    with pytest.raises(CheckpointError, match="which this detector"):
        load_model(trained.run.folder, detector=Cells())


class _InterruptAfter(logging.Handler):
    """Ctrl-C when the log says so, as a person would press it."""

    def __init__(self, text: str) -> None:
        super().__init__(logging.INFO)
        self.text = text

    def emit(self, record: logging.LogRecord) -> None:
        if self.text in record.getMessage():
            os.kill(os.getpid(), signal.SIGINT)


@bit_for_bit
def test_resuming_is_exact_and_needs_the_folder_alone(trained: Trained, tmp_path: Path) -> None:
    overrides = [*TINY, f"data.train={trained.train_json}", f"data.evaluate={trained.val_json}"]
    interrupt = _InterruptAfter("step 1/4")  # heard of when the next step ends
    logger = logging.getLogger("sniper")
    logger.addHandler(interrupt)
    try:
        stopped = train("mobilenetv2", overrides=overrides, root=tmp_path, name="mine")
    finally:
        logger.removeHandler(interrupt)
    assert (stopped.result.finished, stopped.result.step) == (False, 2)
    assert stopped.evaluation is None
    assert stopped.checkpoint.name == "last.safetensors"

    done = train(resume=stopped.folder)
    assert (done.result.finished, done.result.step, done.folder) == (True, 4, tmp_path / "train" / "mine")
    ours, theirs = (load_weights(run.folder / "last.safetensors").weights for run in (done, trained.run))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert done.recipe == trained.run.recipe == Recipe.load(done.folder / "recipe.yaml")

    longer = train(resume=done.folder, overrides=["train.steps=5"])
    assert longer.result.step == 5
    assert Recipe.load(done.folder / "recipe.yaml").train.steps == 5, "the next resume knows"


def test_resuming_says_what_it_cannot(trained: Trained, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(CheckpointError, match="is not a run folder"):
        train(resume=tmp_path)
    with pytest.raises(RecipeError, match="training needs a recipe, or a run to resume"):
        train()
    before = (trained.run.folder / "recipe.yaml").read_text()
    with pytest.raises(CheckpointError, match="of shape"):
        train(resume=trained.run.folder, overrides=["model.head_width=24"])
    assert "other settings of model, no longer the same run" in caplog.text
    assert (trained.run.folder / "recipe.yaml").read_text() == before, "the run stays as it was"
    with pytest.raises(RecipeError, match=r"data\.train is not set"):
        train("mobilenetv2", overrides=TINY, root=tmp_path)


@pytest.mark.parametrize("method", ["tiles", "whole"])
def test_the_alternatives_train_and_run_too(trained: Trained, tmp_path: Path, method: str) -> None:
    overrides = [*TINY, f"sampler.method={method}", "train.steps=1", f"data.train={trained.train_json}"]
    overrides += ["pyramid.levels=[{scale: 1.5}]"]
    run = train("mobilenetv2", overrides=overrides, root=tmp_path)
    assert run.result.step == 1
    assert evaluate(run.folder, trained.val_json, device=DEVICE).result.images == 3


def test_a_dataset_without_anything_to_learn(trained: Trained, tmp_path: Path) -> None:
    overrides = [*TINY, f"data.train={trained.train_json}"]  # background chips could be cut
    overrides += ["pyramid.levels=[{scale: 1.0, train_range_px: [500, 600]}]"]
    with pytest.raises(DataError, match=facts("none of the 20 objects", "pyramid.levels to auto")):
        train("mobilenetv2", overrides=overrides, root=tmp_path)


def test_somebody_elses_detector_goes_the_whole_way(trained: Trained, tmp_path: Path) -> None:
    overrides = [*TINY, f"data.train={trained.train_json}", f"data.evaluate={trained.val_json}", "train.steps=2"]
    run = train("mobilenetv2", overrides=overrides, detector=Cells(), root=tmp_path)
    assert run.result.step == 2
    again = evaluate(run.checkpoint, trained.val_json, detector=Cells(), device=DEVICE)
    assert run.evaluation is not None
    assert again.result.as_dict() == run.evaluation.result.as_dict()
    found = predict(run.folder, trained.val_json.parent / "images", detector=Cells(), min_score=0)
    assert all(len(item.scores) for item in found.items)
    with pytest.raises(RecipeError, match=facts("Cells", "detector")):
        load_model(run.folder)
    with pytest.raises(RecipeError, match="Conv2d is no detector"):
        train("mobilenetv2", overrides=overrides, detector=nn.Conv2d(1, 1, 1), root=tmp_path)


class Deaf(Cells):
    """Learns, but cannot detect."""

    learned = 0

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        Deaf.learned += 1
        return super().losses(batch)

    def detect(self, images: Images) -> list[Detections]:
        raise ValueError("I hear nothing")


def test_a_broken_evaluation_is_found_before_the_first_step(trained: Trained, tmp_path: Path) -> None:
    overrides = [*TINY, f"data.train={trained.train_json}", f"data.evaluate={trained.val_json}"]
    with pytest.raises(ValueError, match="I hear nothing"):
        train("mobilenetv2", overrides=overrides, detector=Deaf(), root=tmp_path)
    with pytest.raises(RecipeError, match=facts("best_metric", "'F1'", "AP", "AP50")):
        train("mobilenetv2", overrides=[*overrides, "train.best_metric=F1"], root=tmp_path, name="metric")
    val = make_set(tmp_path / "val", images=4, seed=1)
    for number in (0, 1):
        (tmp_path / "val" / "images" / f"{number}.png").write_bytes(b"no picture")
    overrides[-1] = f"data.evaluate={val}"
    with pytest.raises(DataError, match=r"0\.png"):
        train("mobilenetv2", overrides=overrides, root=tmp_path, name="unreadable")
    assert Deaf.learned == 0
    for name in ("metric", "unreadable"):
        assert not RunFolder(tmp_path / "train" / name).read_metrics()
    run = train("mobilenetv2", overrides=[*overrides, "loader.on_bad_image=skip"], root=tmp_path)
    assert run.result.finished
    assert run.evaluation is not None
    assert run.evaluation.result.images == 2


@bit_for_bit
def test_the_rehearsal_of_the_evaluation_changes_nothing(trained: Trained, tmp_path: Path) -> None:
    without = train("mobilenetv2", overrides=[*TINY, f"data.train={trained.train_json}"], root=tmp_path)
    assert without.evaluation is None
    ours, theirs = (load_weights(run.folder / "last.safetensors").weights for run in (without, trained.run))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_tables_in_memory_with_classes_in_another_order(trained: Trained, tmp_path: Path) -> None:
    table, val = load_dataset(trained.train_json), load_dataset(trained.val_json)
    shuffled = val.with_classes(["red", "blue", "green"])
    overrides = [*TINY, "train.steps=1"]
    results = [
        train("mobilenetv2", overrides=overrides, data=table, val=one, root=tmp_path / name).evaluation
        for name, one in (("as trained", val), ("shuffled", shuffled))
    ]
    assert results[0] is not None
    assert results[1] is not None
    assert results[0].result.as_dict() == results[1].result.as_dict()
    model = load_model(trained.run.folder, device=DEVICE)
    assert evaluate(model, shuffled).result.as_dict() == evaluate(model, val).result.as_dict()


@pytest.mark.parametrize("form", ["coco", "yolo", "voc"])
def test_a_test_set_may_lack_a_class(trained: Trained, tmp_path: Path, form: str) -> None:
    data = make_set(tmp_path / "val", form, images=3, classes=("red", "blue"), seed=2)  # type: ignore[arg-type]
    done = evaluate(trained.run.folder, data, output=tmp_path / "out", device=DEVICE)
    by_name = {score.name: score.objects for score in done.result.classes}
    assert set(by_name) == set(CLASSES)
    assert by_name["green"] == 0
    assert sum(by_name.values()) == 8


def test_a_detector_may_lack_a_class(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = make_set(tmp_path / "set", images=3, classes=("red", "blue"), seed=2)
    only_red = load_dataset(data).with_classes(["red"])
    run = train("mobilenetv2", overrides=[*TINY, "train.steps=1"], data=only_red, root=tmp_path)
    assert evaluate(run.folder, data, device=DEVICE).result.objects == only_red.num_objects > 0
    assert "objects are of classes that the detector was not trained on (blue)" in caplog.text


def test_bad_images_stop_training_or_are_listed(tmp_path: Path) -> None:
    data, val = make_set(tmp_path / "train"), make_set(tmp_path / "val", images=3, seed=1)
    for image in (tmp_path / "train" / "images" / "0.png", tmp_path / "val" / "images" / "1.png"):
        image.write_bytes(image.read_bytes()[:2000])
    (tmp_path / "train" / "images" / "2.png").unlink()
    overrides = [*TINY, f"data.train={data}", f"data.evaluate={val}"]
    with pytest.raises(DataError, match=r"0\.png .*image id 100"):
        train("mobilenetv2", overrides=overrides, root=tmp_path / "runs")
    run = train("mobilenetv2", overrides=[*overrides, "loader.on_bad_image=skip"], root=tmp_path / "runs")
    assert run.result.finished
    assert sorted(Path(file).name for file, _ in run.skipped) == ["0.png", "1.png", "2.png"]
    assert all(Path(file).name in reason for file, reason in run.skipped)
    assert run.evaluation is not None
    assert (run.evaluation.result.images, run.evaluation.result.objects) == (2, 4), "what was not seen does not count"
    told = (run.folder / "log.txt").read_text()
    assert all(name in told for name in ("0.png", "1.png", "2.png"))


def test_looking_at_chips(trained: Trained, tmp_path: Path) -> None:
    recipe = Recipe.load("mobilenetv2", TINY)
    report = chip_stats(recipe, trained.train_json, output=tmp_path / "stats")
    assert (report.images, report.objects, report.covered) == (6, 20, 1)
    assert {path.name for path in (tmp_path / "stats").iterdir()} == {"coverage.json", "recipe.yaml", "sizes.png"}
    assert json.loads((tmp_path / "stats" / "coverage.json").read_text())["chip_px"] == 128
    assert Recipe.load(tmp_path / "stats" / "recipe.yaml").pyramid == trained.run.recipe.pyramid
    first = chip_preview(recipe, trained.train_json, output=tmp_path / "chips", count=2)
    assert [path.name for path in first] == ["0-chips.jpg", "0-levels.jpg", "5-chips.jpg", "5-levels.jpg"]
    assert all(cv2.imread(str(path)) is not None for path in first)


def test_words_are_short_for_settings(tmp_path: Path) -> None:
    """The words of the verb, on a recipe by name and on one in memory; a length takes the place of the recipe's own."""
    data, val = make_set(tmp_path / "train: #1"), make_set(tmp_path / "val", images=3, seed=1)
    settings = [setting for setting in TINY if not setting.startswith(("train.steps", "loader.batch"))]
    words = {"epochs": 0.5, "batch": 3, "seed": 7, "device": "cpu", "on_bad_image": "skip"}
    by_name = train("mobilenetv2", overrides=settings, data=data, val=val, **words, root=tmp_path / "a").recipe
    assert (by_name.data.train, by_name.data.evaluate) == (str(data), str(val))
    assert (by_name.train.epochs, by_name.train.steps, by_name.train.minutes) == (0.5, None, None)
    assert (by_name.loader.batch_size, by_name.train.seed, by_name.train.device) == (3, 7, "cpu")
    assert by_name.loader.on_bad_image == "skip"
    in_memory = Recipe.load("mobilenetv2", [*settings, "train.steps=900"])
    again = train(in_memory, data=load_dataset(data), val=load_dataset(val), **words, root=tmp_path / "b").recipe
    nothing = {"data": Recipe.parse({}).data}
    assert again.model_copy(update=nothing) == by_name.model_copy(update=nothing)
    with pytest.raises(RecipeError, match=facts("train.epochs", "greater than 0", "-1")):
        train(in_memory, epochs=-1, data=load_dataset(data))
