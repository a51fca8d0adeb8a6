"""Detectors of transformers through the verbs: trained on chips, and as they were saved by the library."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx_parity import assert_same, batch_of, rows_of
from PIL import Image
from torch import nn

import sniper as sniper_package
from facts import facts
from rectangle_set import TINY, make_set
from sniper.detectors.from_transformers.build import build_transformers
from sniper.detectors.from_transformers.config import TransformersConfig
from sniper.detectors.from_transformers.models import required_files
from sniper.detectors.from_transformers.weights import model_folder
from sniper.errors import CheckpointError, RecipeError
from sniper.fetch import Patience, cache_folder, resolve
from sniper.inference.backend import Want
from sniper.pipeline.evaluate import evaluate
from sniper.pipeline.model import Model, load_model
from sniper.pipeline.train import TrainedRun, train
from sniper.pyramid import Level
from sniper.recipe import Recipe
from sniper.training.checkpoint import load_weights
from tiny_transformers import saved_network, tiny_network

pytest.importorskip("transformers")
pytest.importorskip("scipy")

RECIPE = "transformers/dfine_small"
SMALL = [
    *(one for one in TINY if not one.startswith(("model.", "train.steps"))),
    "model.max_detections=20",
    "model.score_threshold=0",
    "train.steps=2",
    "train.warmup_steps=0",
    "train.schedule=steps",
    "train.step_at=[0.9]",
    "train.ema=null",
]
COCO_NAMES = ("N/A", "person", "dog", "N/A", "car")
QUICK = Patience(timeout_s=0.2, retries=0, pause_s=0.01)


def state_of(run: TrainedRun) -> dict[str, torch.Tensor]:
    return load_weights(run.folder / "last.safetensors").weights


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the library saves of a tiny D-FINE."""
    return saved_network(tmp_path_factory.mktemp("saved") / "dfine", "d_fine")


@pytest.fixture(scope="module")
def settings(network: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("data")
    train_json, val_json = make_set(folder / "train"), make_set(folder / "val", images=2, seed=1)
    return [*SMALL, f"model.name={network}", f"data.train={train_json}", f"data.evaluate={val_json}"]


@pytest.fixture(scope="module")
def run(settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    return train(RECIPE, overrides=settings, root=tmp_path_factory.mktemp("runs"))


def test_a_checkpoint_needs_neither_the_network_nor_the_library_files(
    run: TrainedRun, settings: list[str], network: Path
) -> None:
    assert run.result.finished
    assert isinstance(run.recipe.model, TransformersConfig)
    assert run.recipe.model.architecture["model_type"] == "d_fine"
    away = network.rename(network.with_name("away"))
    model = load_model(run.checkpoint, device="cpu")
    away.rename(network)
    assert model.class_names == ("blue", "green", "red")
    assert model.backend.focus_source == "proposals"
    again = evaluate(model, settings[-1].partition("=")[2])
    assert again.result.ap == pytest.approx(run.evaluation.result.ap, abs=1e-6)
    assert again.detections.num_objects > 0
    assert list(load_weights(run.checkpoint).meta.recipe["model"]["mean"]) == [0.0, 0.0, 0.0]


def test_resuming_is_exact(
    run: TrainedRun, settings: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stopped = train(RECIPE, overrides=[*settings, "train.steps=1"], root=tmp_path)
    done = train(resume=stopped.folder, overrides=["train.steps=2"])
    assert "other settings of model" not in caplog.text
    ours, theirs = state_of(done), state_of(run)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_another_training_takes_over_the_rows_of_its_classes(
    run: TrainedRun, settings: list[str], tmp_path: Path
) -> None:
    more = [*settings, "train.steps=1", "train.learning_rate=1e-12", "data.classes=[red, blue]"]
    tuned = train(RECIPE, overrides=more, weights=run.checkpoint, root=tmp_path)
    for layer, rows in (("net.class_embed.0.weight", [2, 0]), ("net.model.denoising_class_embed.weight", [2, 0, 3])):
        torch.testing.assert_close(state_of(tuned)[layer], state_of(run)[layer][rows], atol=1e-6, rtol=1e-4)


def test_mining_asks_the_detector_itself(settings: list[str], tmp_path: Path) -> None:
    own = [*settings, "negatives.proposals=self", "negatives.refresh_epochs=1"]
    assert train(RECIPE, overrides=own, root=tmp_path).result.finished


# --- as ONNX ---------------------------------------------------------------------------------------------------------


def test_a_plain_transformer_is_exported_for_any_batch_and_size(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    detector = sniper_package.from_transformers(tiny_network("yolos"), max_detections=60, score_threshold=0.0)
    recipe = Recipe.load("transformers/yolos_tiny", ["pyramid.levels=[{scale: 1.0}]", "pyramid.chip_px=128"])
    model = Model.of(detector.eval(), recipe, ("blue", "green", "red"), (1, 2, 3))
    path = sniper_package.export(model, tmp_path / "yolos.onnx").path
    written = load_model(path, device="cpu").backend
    want = Want(regions="detections", focus=False, features=False)
    for batch, height, width in ((1, 128, 192), (4, 192, 128)):
        pixels = np.random.default_rng(0).integers(0, 256, (batch, height, width, 3), np.uint8)
        valid_hw, scale = np.asarray([[height - 7, width - 5]] * batch), np.ones(batch, np.float32)
        ours, theirs = (one.look(pixels, valid_hw, scale, want) for one in (model.backend, written))
        np.testing.assert_allclose(theirs.scores, ours.scores, atol=1e-4)
        np.testing.assert_allclose(theirs.boxes, ours.boxes, atol=0.05)
        assert (theirs.labels == ours.labels).all()


@pytest.mark.parametrize("kind", ["rt_detr_v2", "lw_detr"])  # writing takes seconds; RESULTS.md has the others
def test_others_are_exported_for_one_size_and_any_batch(kind: str, shared_data: Path, tmp_path: Path) -> None:
    """Their windows are padded to it, on which torch says the same."""
    pytest.importorskip("onnxscript")
    network = tiny_network(kind)
    for layer in network.modules():  # weights with which the boxes of queries differ
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
    detector = sniper_package.from_transformers(network, max_detections=20, score_threshold=0.0)
    overrides = ["pyramid.levels=[{scale: 1.0}]", "pyramid.chip_px=128", "inference.window_px=250"]
    model = Model.of(detector.eval(), Recipe.load("transformers/yolos_tiny", overrides), ("b", "g", "r"), (1, 2, 3))
    path = sniper_package.export(model, tmp_path / "model.onnx").path
    written = load_model(path, device="cpu").backend
    photos = sorted((shared_data / "coco_subset" / "val2017").glob("*.jpg"))[:4]
    for batch, size_wh in ((1, (256, 192)), (4, (192, 128))):
        pixels, valid_hw = batch_of(photos[:batch], size_wh)
        padded = np.pad(pixels, ((0, 0), (0, 256 - size_wh[1]), (0, 256 - size_wh[0]), (0, 0)))
        scale = np.ones(batch, np.float32)
        ours = model.backend.look(padded, valid_hw, scale, Want())
        theirs = written.look(pixels, valid_hw, scale, Want())
        for image in range(batch):
            assert_same(rows_of(ours, image), rows_of(theirs, image))
    with pytest.raises(RecipeError, match=facts("inference.window_px", "320", "256")):
        load_model(path, device="cpu", overrides=["inference.window_px=320"])


def test_what_cannot_be_exported_is_told(tmp_path: Path) -> None:
    model = Model.of(
        sniper_package.from_transformers(tiny_network("deformable_detr")).eval(),
        Recipe.load("transformers/yolos_tiny", ["pyramid.levels=[{scale: 1.0}]", "pyramid.chip_px=128"]),
        ("blue", "green", "red"), (1, 2, 3),
    )  # fmt: skip
    with pytest.raises(RecipeError, match=facts("deformable_detr", "ONNX", "yolos")):
        sniper_package.export(model, tmp_path / "deformable.onnx")
    assert list(tmp_path.iterdir()) == []


# --- the library's weights -------------------------------------------------------------------------------------------


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 255, (150, 220, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture(scope="module")
def detr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DETR with gaps among its classes, and colours that are normalised in its own way."""
    folder = saved_network(tmp_path_factory.mktemp("saved") / "detr", "detr", COCO_NAMES)
    colours = {"do_normalize": True, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.1]}
    (folder / "preprocessor_config.json").write_text(json.dumps(colours))
    return folder


def test_predict_takes_a_folder_of_the_library(sniper: Callable, photo: Path, detr: Path, tmp_path: Path) -> None:
    done = sniper("predict", detr, photo, "-o", tmp_path / "out", "--min-score", 0.0)
    assert done.code == 0, done.lines
    found = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert {one["class"] for one in found[0]["detections"]} <= {"person", "dog", "car"}
    assert found[0]["detections"]


def test_a_saved_network_becomes_a_model_with_two_levels(detr: Path, photo: Path) -> None:
    model = load_model(detr, device="cpu")
    assert (model.class_names, model.class_ids) == (("person", "dog", "car"), (1, 18, 3))
    assert (model.recipe.model.mean, model.recipe.model.std) == ((0.5, 0.4, 0.3), (0.2, 0.2, 0.1))
    assert len(model.pyramid.levels) == 2
    assert model.recipe.inference.window_px == 640
    pyramid = model.recipe.pyramid.model_copy(update={"levels": (Level(long_px=320), Level(long_px=160))})
    small = replace(model, recipe=model.recipe.model_copy(update={"pyramid": pyramid}))
    assert len(small.focused(threshold=0.2).detect(photo, min_score=0.01)) > 0


def test_rows_of_the_same_classes_are_taken_over(detr: Path) -> None:
    torch.manual_seed(1)
    new = build_transformers(TransformersConfig(name=str(detr)), 3, class_names=("car", "none", "person"))
    old = build_transformers(TransformersConfig(name=str(detr)), 5, class_names=COCO_NAMES)
    layer = "net.class_labels_classifier.weight"
    ours, theirs = new.state_dict(), old.state_dict()
    assert torch.equal(ours[layer][[0, 2, 3]], theirs[layer][[4, 1, 5]])  # the last is no object
    assert all(torch.equal(ours[name], theirs[name]) for name in ours if "class_labels_classifier" not in name)
    net = type(old.net).from_pretrained(detr).state_dict()
    assert all(torch.equal(theirs[f"net.{name}"], value) for name, value in net.items())


def put(folder: Path, place: Path) -> None:
    shutil.copytree(folder, place, dirs_exist_ok=True)


def test_both_caches_are_looked_in(detr: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNIPER_CACHE", str(tmp_path / "own"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(CheckpointError, match=facts("hf/o/detr", "sniper download", str(cache_folder()))):
        model_folder("o/detr", QUICK)
    snapshot = tmp_path / "hub" / "models--o--detr" / "snapshots" / ("a" * 40)
    put(detr, snapshot)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("a" * 40)
    assert model_folder("o/detr", QUICK) == snapshot
    for file in required_files("hf/o/detr"):
        place = cache_folder() / "weights" / resolve(file).place
        put(detr, place.parent)
        place.with_name(place.name + ".json").write_text(json.dumps({"size": place.stat().st_size}))
    assert model_folder("o/detr", QUICK) == place.parent
    assert load_model("hf/o/detr", device="cpu").class_names == ("person", "dog", "car")


def test_weights_that_cannot_be_read_or_do_not_fit(sniper: Callable, detr: Path, photo: Path, tmp_path: Path) -> None:
    def with_file(name: str, content: bytes | None) -> Path:
        folder = tmp_path / f"{name}{len(list(tmp_path.iterdir()))}"
        put(detr, folder)
        (folder / name).unlink() if content is None else (folder / name).write_bytes(content)
        return folder

    pickled = with_file("model.safetensors", None)
    (pickled / "pytorch_model.bin").write_bytes(b"pickle")
    config = json.loads((detr / "config.json").read_text())
    other = json.dumps(config | {"encoder_ffn_dim": 24}).encode()
    for folder, said in (
        (pickled, facts("model.safetensors", "pytorch_model.bin", "save_pretrained")),
        (with_file("model.safetensors", b"no tensors"), facts("model.safetensors", "damaged")),
        (with_file("config.json", other), facts("model.safetensors", "fit", "shape")),
        (with_file("config.json", b'{"model_type": "detr", "id2label": {}}'), facts("config.json", "id2label")),
    ):
        with pytest.raises(CheckpointError, match=said):
            load_model(folder, device="cpu")
    with pytest.raises(RecipeError, match=facts("model_type", "vit", "rt_detr")):
        load_model(with_file("config.json", b'{"model_type": "vit", "id2label": {"0": "a"}}'), device="cpu")
    for change, fact in (({"decoder_layers": 3}, "layers"), ({"encoder_ffn_dim": 24}, "expected")):
        with pytest.raises(CheckpointError, match=facts(fact, "model.architecture", "model.weights")):
            build_transformers(TransformersConfig(name=str(detr), architecture=change), 2)
    said = sniper("predict", "hf/rtdetr", photo)
    assert said.code == 2
    assert "hf/OWNER/NAME" in " ".join(said.lines)
