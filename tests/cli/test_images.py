"""Image files of any kind, and those that cannot be read; proposals and the negative chips that come of them."""

import json
import re
from pathlib import Path

import numpy as np
from commands import Command, Trained, assert_one_sentence, tiny_settings
from PIL import Image

from devices import DEVICE
from rectangle_set import SIZE, coco_document, make_set
from sniper.data.detection_files import load_detections


def _spoil(images: Path) -> None:
    (images / "0.png").write_bytes((images / "0.png").read_bytes()[:3000])
    (images / "1.png").unlink()


def test_bad_images_stop_or_are_skipped_and_listed(sniper: Command, trained: Trained, tmp_path: Path) -> None:
    data = make_set(tmp_path / "set")
    images = tmp_path / "set" / "images"
    _spoil(images)
    train = ["train", "mobilenetv2", *tiny_settings(), "--set", "train.steps=2", "--data", data]
    evaluate = ["evaluate", trained.folder, data]
    predict = ["predict", trained.folder, images]
    assert_one_sentence(sniper(*train), r"(0|1)\.png \(image id 10[01]\)")
    assert_one_sentence(sniper(*evaluate), r"0\.png \(image id 100\)")
    assert_one_sentence(sniper(*predict), r"0\.png cannot be decoded")
    for verb, files in ((train, ("0.png", "1.png")), (evaluate, ("0.png", "1.png")), (predict, ("0.png",))):
        said = sniper(*verb, "--on-bad-image", "skip")
        assert said.code == 0, said.err
        listed = said.err.split(f"skipped {len(files)} files that cannot be read:\n")[1].splitlines()
        assert len(listed) == len(files)
        for name in files:
            assert sum(str(images / name) in line for line in listed) == 1
    log = next(Path("runs/train").rglob("log.txt")).parent
    logs = "".join(path.read_text() for path in log.parent.rglob("log.txt"))
    assert str(images / "0.png") in logs
    assert str(images / "1.png") in logs
    for image in images.iterdir():
        image.write_bytes(b"")
    assert_one_sentence(sniper(*train, "--on-bad-image", "skip"), "can be read")
    assert_one_sentence(sniper(*evaluate, "--on-bad-image", "skip"), "none of 6 images can be read")
    assert "0 detections in 0 images" in sniper(*predict, "--on-bad-image", "skip").out


def test_images_in_every_colour_and_orientation(sniper: Command, trained: Trained, tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    pixels = Image.fromarray(random.integers(0, 255, (SIZE[1], SIZE[0], 3), dtype=np.uint8))
    folder = tmp_path / "set" / "images"
    folder.mkdir(parents=True)
    pixels.convert("CMYK").save(folder / "cmyk.jpg")
    pixels.convert("L").save(folder / "grey.jpg")
    pixels.convert("L").save(folder / "grey.png")
    pixels.convert("RGBA").save(folder / "alpha.png")
    pixels.convert("P").save(folder / "palette.png")
    pixels.convert("1").save(folder / "bits.png")
    deep = random.integers(0, 65535, (SIZE[1], SIZE[0]), dtype=np.uint16)
    Image.fromarray(deep).save(folder / "deep.png")
    Image.fromarray(deep).save(folder / "deep.tif")
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side
    pixels.transpose(Image.Transpose.ROTATE_90).save(folder / "turned.jpg", exif=exif.tobytes())
    pixels.save(folder / "plain.webp")
    objects = {path.name: [("red", (20, 20, 60, 50))] for path in sorted(folder.iterdir())}
    data = tmp_path / "set" / "set.json"
    data.write_text(json.dumps(coco_document(objects, ("red",))))
    said = sniper("train", "mobilenetv2", *tiny_settings(), "--data", data, "--val", data, "--root", tmp_path)
    assert said.code == 0, said.err
    others = [line for line in said.err.splitlines() if "evaluation images are training images too" not in line]
    assert not re.search("warning|error|skipped", "\n".join(others))
    said = sniper("evaluate", tmp_path / "train" / "train", data)
    assert (said.code, said.err) == (0, "")
    said = sniper("predict", tmp_path / "train" / "train", folder, "-o", tmp_path / "found")
    assert (said.code, said.err) == (0, "")
    assert f"in {len(objects)} images" in said.out
    assert len(list((tmp_path / "found").glob("*.jpg"))) == len(objects)


def test_propose_and_the_negative_chips_that_come_of_it(sniper: Command, trained: Trained) -> None:
    command = "propose", trained.folder, trained.data, "-o", "boxes.safetensors", "--top", "20", "--device", DEVICE
    said = sniper(*command)
    assert said.code == 0, said
    assert "of 6 images, boxes.safetensors written" in said.out
    again = sniper(*command)
    assert "was done before" in again.out
    shown = sniper("chips", "stats", trained.data, *tiny_settings(), "--proposals", "boxes.safetensors")
    assert "negative" in shown.out
    hard = "--detections", "--min-score", "0.1", "--device", DEVICE
    scores = []
    for name, share in (("hard", "1"), ("some", "0.3")):
        said = sniper(
            "propose", trained.folder, trained.data, "-o", f"{name}.safetensors", *hard, "--window-share", share
        )
        assert f"of 6 images, {name}.safetensors written" in said.out
        scores.append(load_detections(f"{name}.safetensors").scores)
        assert (scores[-1] >= 0.1).all()
    assert len(scores[0]) > len(scores[1])
    assert not np.isin(load_detections("boxes.safetensors").scores, scores[0]).any(), "the second stage's scores"
    for option, told in (("--nms", "--nms is an IoU"), ("--window-share", "--window-share is a share above 0")):
        assert_one_sentence(sniper("propose", trained.folder, trained.data, "-o", "b", option, "0"), told)
    weights = trained.folder / "last.safetensors"
    assert_one_sentence(sniper("chips", "stats", trained.data, "--proposals", weights), "not weights")
    missing = sniper("train", "mobilenetv2", *tiny_settings(), "--data", trained.data, "--negatives", "none.json")
    assert_one_sentence(missing, r"none\.json is not there")
    assert not Path("runs/train").exists()
