"""What is refused in one sentence: annotations, recipes, checkpoints."""

import json
import pickle
import re
from pathlib import Path

import pytest
import torch
from commands import Command, Trained, assert_one_sentence, tiny_settings
from safetensors.torch import save_file

from rectangle_set import coco_document, make_set
from sniper.training.checkpoint import load_weights, save_weights


def _document(**changes: object) -> dict:
    objects = {"0.png": [("red", (10, 10, 40, 40)), ("blue", (60, 20, 90, 70))], "1.png": [("red", (5, 5, 25, 20))]}
    return coco_document(objects, ("blue", "red")) | changes


def _annotation(**changes: object) -> dict:
    document = _document()
    document["annotations"][1] |= changes
    return document


REFUSED: dict[str, tuple[object, str]] = {
    "cut off": (json.dumps(_document())[:-40], "ends in the middle|cut off"),
    "not JSON": ("{'images': []}", "is not JSON"),
    "unknown class": (_annotation(category_id=99), "annotation 2.*category.*99"),
    "unknown image": (_annotation(image_id=7), "annotation 2.*image.*7"),
    "image id twice": (_document(images=[_document()["images"][0]] * 2), "image id 100"),
    "class id twice": (_document(categories=[{"id": 10, "name": "a"}, {"id": 10, "name": "b"}]), "category id 10"),
    "no images": (_document(images=[], annotations=[]), "has no images"),
    "no sizes": (_document(images=[{"id": 100, "file_name": "0.png"}]), "image 100.*width"),
    "no box": (_document(annotations=[{"id": 1, "image_id": 100, "category_id": 10}]), "annotation 1.*bbox"),
    "another kind of file": ([1, 2], "not a COCO annotation file"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_annotations_that_are_refused(sniper: Command, tmp_path: Path, name: str) -> None:
    content, message = REFUSED[name]
    file = tmp_path / "set.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    assert_one_sentence(sniper("chips", "stats", file), re.escape(str(file)), message)


def test_other_forms_and_places_that_are_refused(sniper: Command, tmp_path: Path) -> None:
    assert_one_sentence(sniper("chips", "stats", tmp_path / "none.json"), r"none\.json is not there")
    assert_one_sentence(sniper("chips", "stats", tmp_path), "is no dataset of a known form")
    yolo = make_set(tmp_path / "yolo", "yolo")
    assert_one_sentence(sniper("chips", "stats", yolo, "--split", "test"), r"data\.yaml.*test")
    label = tmp_path / "yolo" / "labels" / "3.txt"
    label.write_text("0 0.5 0.5 0.1 0.1\n7 0.5 0.5 0.1 0.1\n")
    assert_one_sentence(sniper("chips", "stats", yolo), r"3\.txt, line 2: class 7 is not in 0\.\.2")
    voc = make_set(tmp_path / "voc", "voc")
    page = tmp_path / "voc" / "Annotations" / "2.xml"
    page.write_text(page.read_text()[:-30])
    assert_one_sentence(sniper("chips", "stats", voc), r"2\.xml, line 1: damaged XML")


def test_boxes_that_can_be_repaired_are_one_warning(sniper: Command, tmp_path: Path) -> None:
    boxes = {
        "dilation": [140, 100, 50, 50],
        "outside": [500, 500, 10, 10],
        "inverted": [50, 50, -10, 10],
        "nan": [float("nan"), 10, 10, 10],
        "empty": [10, 10, 0, 10],
        "sound": [10, 10, 30, 30],
    }
    annotations = [
        {"id": 1, "image_id": 100, "category_id": 10, "bbox": box, "iscrowd": 0, "area": 1} for box in boxes.values()
    ]
    file = tmp_path / "set.json"
    file.write_text(json.dumps(_document(annotations=annotations)))
    said = sniper("chips", "stats", file)
    assert said.code == 0
    assert "2 objects in 2 images" in said.out
    assert said.err == (
        f"warning: {file}, 6 boxes: boxes clipped to the image: 1; boxes that are not finite dropped: 1; "
        "inverted boxes dropped: 1; empty boxes dropped: 1; boxes outside the image dropped: 1; "
        "repeated annotation ids numbered anew: 5\n"
    )


def test_recipes_that_are_refused(sniper: Command, trained: Trained, tmp_path: Path) -> None:
    train = ["train", "mobilenetv2", "--data", trained.data]
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("train:\n  learning_rate: [fast\n")
    cases = (
        ([*train, "--set", "train.learning_rat=1"], r"did you mean train\.learning_rate\?"),
        ([*train, "--set", "train.learning_rate=fast"], "expected a number, got 'fast'"),
        ([*train, "--set", "model.backbone=timm/resnet5"], "resnet5"),
        ([*train, "--set", "train.best_metric=mAP", "--set", "model.weights=no.pth"], r"no\.pth"),
        ([*train, "--on-bad-image", "ignore"], "--on-bad-image takes stop or skip, got 'ignore'"),
        (["train", "mobilnet", "--data", trained.data], r"no recipe mobilnet.*\(demo, .*mobilenetv2"),
        (["train", wrong, "--data", trained.data], r"wrong\.yaml, line \d: not valid YAML"),
        (
            ["evaluate", trained.folder, trained.val, "--protocol", "pascal"],
            "--protocol takes coco, voc, .*got 'pascal'",
        ),
        ([*train, "--protocol", "VOC"], "--protocol takes coco, voc, .*got 'VOC'"),
        (["train", "mobilenetv2"], r"data\.train is not set"),
        (["train"], "takes a recipe, or --resume RUN"),
        (["train", "mobilenetv2", "--resume", trained.folder], "takes a recipe, or --resume RUN, and not both"),
        (["train", "--resume", tmp_path], "is not a run folder"),
        (
            [*train, "--root", trained.folder.parents[1], "--name", "one", *tiny_settings()],
            "one exists and is not empty",
        ),
        (["chips", "stats", trained.data, "--set", "chips.stride_px=[600, 600]"], "leave gaps between chips of"),
        (["chips", "stats", trained.data, "--set", "pyramid.levels=[]"], "a list of at least 1 item"),
    )
    for arguments, message in cases:
        assert_one_sentence(sniper(*arguments), message)
    assert list(Path().iterdir()) == [], "nothing is left behind"


def test_checkpoints_that_are_refused(sniper: Command, trained: Trained, tmp_path: Path) -> None:
    good = (trained.folder / "best.safetensors").read_bytes()
    (tmp_path / "text.safetensors").write_text("this is no checkpoint")
    (tmp_path / "pickle.pt").write_bytes(pickle.dumps({"a": 1}))
    torch.save({"a": torch.zeros(3)}, tmp_path / "torch.pt")
    (tmp_path / "cut.safetensors").write_bytes(good[:-1000])
    (tmp_path / "header.safetensors").write_bytes(good[:300])
    (tmp_path / "flipped.safetensors").write_bytes(good[:-1000] + bytes([good[-1000] ^ 64]) + good[-999:])
    weights, meta = load_weights(trained.folder / "best.safetensors")
    nan = {name: value * torch.nan if value.is_floating_point() else value for name, value in weights.items()}
    save_weights(tmp_path / "nan.safetensors", nan, meta)
    save_file({"a": torch.zeros(3)}, tmp_path / "foreign.safetensors")
    (tmp_path / "empty.safetensors").touch()
    (tmp_path / "folder").mkdir()
    for name, message in (
        ("text.safetensors", "damaged or not a checkpoint"),
        ("flipped.safetensors", "is damaged .its checksum is another"),
        ("nan.safetensors", "has a value that is not a finite number"),
        ("pickle.pt", "is a PyTorch pickle, which can run code"),
        ("torch.pt", "is a PyTorch pickle, which can run code"),
        ("cut.safetensors", "damaged or not a checkpoint"),
        ("header.safetensors", "damaged or not a checkpoint"),
        ("foreign.safetensors", "not a sniper checkpoint"),
        ("empty.safetensors", "is empty"),
        ("folder", r"no best\.safetensors or last\.safetensors in this folder"),
        ("none.safetensors", "no such checkpoint"),
    ):
        place = re.escape(str(tmp_path / name))
        assert_one_sentence(sniper("evaluate", tmp_path / name, trained.val), place, message)
        assert_one_sentence(sniper("predict", tmp_path / name, trained.val.parent / "images"), place, message)
    said = sniper("predict", trained.folder, trained.val.parent / "images", "--device", "warp")
    assert_one_sentence(said, "--device warp: expected auto, cpu, cuda")
    said = sniper("predict", trained.folder, "none/*.jpg")
    assert_one_sentence(said, r"none/\*\.jpg: no such file, folder or match")
