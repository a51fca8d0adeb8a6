"""From a checkpoint of the 2018 code to detections, by commands."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from devices import TRAIN_DEVICE
from recorded import Golden
from rectangle_set import make_set
from sniper.mxnet.classes import COCO_IDS, COCO_NAMES, VOC_NAMES
from sniper.pipeline.import_mxnet import import_mxnet
from sniper.pipeline.model import load_model
from sniper.training.checkpoint import load_weights


def test_classes_of_the_datasets() -> None:
    assert len(COCO_NAMES) == len(COCO_IDS) == len(set(COCO_NAMES)) == 80
    assert len(VOC_NAMES) == 20
    assert (COCO_IDS[COCO_NAMES.index("person")], COCO_IDS[COCO_NAMES.index("toothbrush")]) == (1, 90)
    assert COCO_IDS[COCO_NAMES.index("stop sign")] == 13


@pytest.mark.slow
def test_imported_checkpoint_predicts(sniper, golden: Golden, tmp_path: Path) -> None:
    file, checkpoint = golden.file("net/mobilenet-0001.params.xz"), tmp_path / "net.safetensors"
    done = sniper("import-mxnet", file, "--arch", "sniper_mobilenetv2", "-o", checkpoint)
    assert done.code == 0, done.lines
    model = load_model(checkpoint)
    assert model.class_names == COCO_NAMES
    assert model.pyramid.levels[0].long_px == 2000

    image = tmp_path / "image.png"
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (60, 120, 3), dtype=np.uint8)).save(image)
    done = sniper("predict", checkpoint, image, "-o", tmp_path / "out", "--min-score", "0.5")
    assert done.code == 0, done.lines
    (found,) = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert found["file"] == str(image)
    assert found["detections"]
    assert all(detection["class"] in COCO_NAMES for detection in found["detections"])


@pytest.mark.slow
def test_fine_tuning_from_an_imported_checkpoint(sniper, golden: Golden, tmp_path: Path) -> None:
    """Of other classes, one of which it knows; by commands."""
    checkpoint = tmp_path / "net.safetensors"
    import_mxnet(golden.file("net/mobilenet-0001.params.xz"), "sniper_mobilenetv2", checkpoint)
    data = make_set(tmp_path / "data", images=3)
    data.write_text(data.read_text().replace('"blue"', '"person"'))
    settings = [
        "train.steps=14", "train.learning_rate=0.003", "train.warmup_steps=0", "train.accumulate=1",
        f"train.device={TRAIN_DEVICE}", "train.precision=fp32", "train.log_every=1", "train.tensorboard=false",
        "pyramid.chip_px=128", "pyramid.levels=[{scale: 2}]", "chips.stride_px=auto", "negatives.proposals=null",
        "loader.batch_size=2", "loader.workers=0", "original.train_proposals.keep=40",
    ]  # fmt: skip
    options = [part for setting in settings for part in ("--set", setting)]
    recipe = "original/coco-mobilenetv2"
    done = sniper("train", recipe, "--data", data, "--weights", checkpoint, "--root", tmp_path / "runs", *options)
    assert done.code == 0, done.lines
    said = "1 of 3 classes known to it; left at random: head.classes (new classes)"
    assert said in "\n".join(done.lines)
    run = tmp_path / "runs" / "train" / "train"
    assert said in (run / "log.txt").read_text()
    assert f"weights: {checkpoint}" in (run / "recipe.yaml").read_text()
    losses = [float(row["loss"]) for row in csv.DictReader((run / "metrics.csv").open())]
    assert len(losses) == 14
    assert np.mean(losses[-4:]) < 0.8 * np.mean(losses[:3])
    before, after = load_weights(checkpoint).weights, load_weights(run / "last.safetensors").weights
    assert torch.equal(before["backbone.first.norm.weight"], after["backbone.first.norm.weight"])
    assert load_model(run).class_names == ("person", "green", "red")

    resnet = sniper("train", "original/coco-resnet50", "--data", data, "--weights", checkpoint, *options)
    assert resnet.code == 2
    assert "has no backbone.norm_in.weight, which this detector needs" in " ".join(" ".join(resnet.lines).split())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--arch", "sniper_resnet50"), "no entry arg:bn_data_gamma, which sniper_resnet50 needs"),
        (("--arch", "vgg"), "--arch vgg: no such network; expected sniper_resnet101"),
        (("--arch", "sniper_mobilenetv2", "--classes", "names.txt"), "has 80 classes without background, but 2 names"),
    ],
)
def test_what_is_wrong_is_one_sentence(sniper, golden: Golden, tmp_path: Path, arguments: tuple, sentence: str) -> None:
    names = tmp_path / "names.txt"
    names.write_text("cat\n\ndog\n")
    chosen = [names if argument == "names.txt" else argument for argument in arguments]
    output = tmp_path / "net.safetensors"
    done = sniper("import-mxnet", golden.file("net/mobilenet-0001.params.xz"), *chosen, "-o", output)
    assert done.code == 2
    assert sentence in "\n".join(done.lines)
    assert "Traceback" not in "\n".join(done.lines)
    assert not output.exists()
