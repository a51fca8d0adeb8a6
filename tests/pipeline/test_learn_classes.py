"""Classes learned from folders of photos, and found in others: from Python, and from the command line."""

import json
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from photo_folders import SHAPES, colourful_things, make_folder, make_photo
from PIL import Image
from safetensors.torch import save_file
from trained_run import Trained

import sniper as package
from sniper.boxes import iou
from sniper.errors import DataError, RecipeError
from sniper.nn.crop_trunk import build_crop_trunk
from sniper.pipeline.learn_classes import add_classes, learn_classes, remove_classes
from sniper.pipeline.learned import LearnedClasses
from sniper.pipeline.learned_sheet import write_sheet
from sniper.pipeline.model import Model, load_model
from sniper.pipeline.predict import predict
from sniper.pipeline.region_store import RegionStore

VOC = (
    "<annotation><object><name>{name}</name><bndbox><xmin>{0}</xmin><ymin>{1}</ymin><xmax>{2}</xmax><ymax>{3}</ymax>"
    "</bndbox></object></annotation>"
)


@pytest.fixture(scope="module")
def things() -> Model:
    return colourful_things()


@pytest.fixture(scope="module")
def trunk(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Random weights tell colours and shapes apart well enough."""
    torch.manual_seed(3)
    file = tmp_path_factory.mktemp("trunk") / "trunk.safetensors"
    weights = build_crop_trunk("test_resnet", None).body.state_dict()
    save_file({name: value.contiguous().clone() for name, value in weights.items()}, file)
    return str(file)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("photos") / "learn"
    make_folder(place)
    return place


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> RegionStore:
    return RegionStore(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def learned(things: Model, trunk: str, folder: Path, store: RegionStore) -> LearnedClasses:
    return learn_classes(
        things, folder, folder.parent / "parts.safetensors", features="test_resnet", feature_weights=trunk, store=store
    )


def test_the_region_that_photos_of_a_class_have_in_common_is_learned(learned: LearnedClasses, tmp_path: Path) -> None:
    boxes = make_folder(tmp_path)
    assert learned.head.class_names == tuple(sorted(SHAPES))
    assert len(learned.photos) == 18
    for photo in learned.photos:
        truth = np.array([boxes[f"{photo.class_name}/{photo.path.name}"]], np.float32)
        assert iou(photo.boxes_xyxy, truth)[0, 0] > 0.7, photo.path
    assert learned.head.expected.accuracy >= 0.9
    assert learned.warnings == ()


def test_they_are_found_in_new_photos_and_what_is_unknown_is_not(
    things: Model, learned: LearnedClasses, tmp_path: Path
) -> None:
    truth = {f"{name}.png": (name, make_photo(tmp_path / f"{name}.png", name, 77)) for name in SHAPES}
    make_photo(tmp_path / "none.png", None, 78)  # only what none of the classes is
    assert learned.path is not None
    found = predict(things, tmp_path, classes=learned.path).items
    assert len(found) == 4
    for one in found:
        names = [one.class_names[label] for label in one.labels]
        if one.path.name == "none.png":
            assert names == []
            continue
        name, box = truth[one.path.name]
        assert names[0] == name
        assert iou(one.boxes_xyxy[:1], np.array([box], np.float32))[0, 0] > 0.7
        assert 0 < one.scores[0] <= 0.8  # objectness times probability
    model = things.with_classes(learned.head)
    again = model.detect([one.path for one in found])
    assert [one.labels.tolist() for one in again] == [one.labels.tolist() for one in found]
    assert model.digest() != things.digest()
    recipe = things.recipe.changed(["inference.reject_below=1"])
    strict = replace(things, recipe=recipe).with_classes(learned.head)
    assert [len(one.labels) for one in strict.detect([one.path for one in found])] == [0] * 4
    assert strict.draw_scores[0] > model.draw_scores[0]


def test_boxes_beside_photos_are_used(
    things: Model, trunk: str, folder: Path, store: RegionStore, tmp_path: Path
) -> None:
    place = tmp_path / "photos"
    shutil.copytree(folder, place)
    part = (40, 10, 80, 60)  # of the first ball's photo: not what it would have chosen
    (place / "ball" / "0.xml").write_text(VOC.format(41, 11, 80, 60, name="ball"))
    done = learn_classes(things, place, features="test_resnet", feature_weights=trunk, store=store)
    assert done.photos[0].boxes_xyxy.tolist() == [list(part)]
    (place / "ball" / "0.xml").write_text(VOC.format(200, 11, 280, 60, name="ball"))
    with pytest.raises(DataError, match=r"0\.png: its box .* lies outside"):
        learn_classes(things, place, features="test_resnet", feature_weights=trunk, store=store)


def test_photos_are_described_once(
    things: Model, trunk: str, folder: Path, tmp_path: Path, learned: LearnedClasses, store: RegionStore
) -> None:
    files = len(list(store.folder.rglob("*.safetensors")))
    again = learn_classes(things, folder, features="test_resnet", feature_weights=trunk, store=store)
    assert len(list(store.folder.rglob("*.safetensors"))) == files
    fresh = RegionStore(tmp_path / "fresh")
    once = learn_classes(things, folder, features="test_resnet", feature_weights=trunk, store=fresh)
    for other in (again, once):
        assert np.array_equal(other.head.classifier.weights, learned.head.classifier.weights)
        assert other.head.calibration == learned.head.calibration
    place = tmp_path / "changed"
    shutil.copytree(folder, place)
    make_photo(place / "ball" / "0.png", "ball", 999)
    learn_classes(things, place, features="test_resnet", feature_weights=trunk, store=fresh)
    assert len(list(fresh.folder.rglob("*.safetensors"))) == 19


def test_classes_are_added_and_removed_without_the_photos_of_the_others(
    things: Model, learned: LearnedClasses, store: RegionStore, tmp_path: Path
) -> None:
    file = tmp_path / "parts.safetensors"
    two = remove_classes(learned.head, ["ring"], file)
    assert two.class_names == ("ball", "rod")
    assert two.photo_counts().tolist() == [6, 6]
    kept = two.examples.features[two.examples.labels == 1]
    before = learned.head.examples
    assert np.array_equal(kept, before.features[before.labels == learned.head.class_names.index("rod")])
    make_folder(tmp_path / "more", names=("square",), photos=5)
    done = add_classes(file, things, tmp_path / "more", file, store=store)
    assert done.head.class_names == ("ball", "rod", "square")
    assert done.head.photo_counts().tolist() == [6, 6, 5]
    assert len(done.photos) == 5
    again = add_classes(file, things, tmp_path / "more", store=store)  # replaced, not doubled
    assert again.head.photo_counts().tolist() == [6, 6, 5]
    make_photo(tmp_path / "new" / "a.png", "rod", 55, distractor=True)
    found = predict(things, tmp_path / "new", classes=file).items[0]
    assert sorted(found.class_names[label] for label in found.labels) == ["rod", "square"]
    with pytest.raises(DataError, match="there is no class 'cube'"):
        remove_classes(file, ["cube"])
    with pytest.raises(DataError, match="no class would be left"):
        remove_classes(file, ["ball", "rod", "square"])


def test_photos_to_look_at_again(things: Model, trunk: str, folder: Path, store: RegionStore, tmp_path: Path) -> None:
    place = tmp_path / "photos"
    shutil.copytree(folder, place)
    make_photo(place / "ball" / "7.png", "rod", 500, distractor=False)  # in the wrong folder
    pixels = np.asarray(Image.open(place / "ring" / "0.png")).copy()
    pixels[0, 0] = 0
    Image.fromarray(pixels).save(place / "ring" / "9.png")  # nearly the same
    done = learn_classes(things, place, features="test_resnet", feature_weights=trunk, store=store)
    told = "\n".join(done.warnings)
    assert "ball/7.png looks rather like rod" in told
    assert "ring/9.png looks the same as" in told
    write_sheet(done, tmp_path / "sheet.png")
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape[1] > 1600
    assert (np.abs(sheet.astype(int) - (232, 89, 12)).max(axis=2) < 12).sum() > 50  # the odd one's dashes


def test_few_photos_and_one_class_against_background(
    things: Model, trunk: str, folder: Path, store: RegionStore, tmp_path: Path
) -> None:
    for name in SHAPES:
        (tmp_path / "one" / name).mkdir(parents=True)
        shutil.copy(folder / name / "0.png", tmp_path / "one" / name)
    done = learn_classes(things, tmp_path / "one", features="test_resnet", feature_weights=trunk, store=store)
    assert np.isnan(done.head.expected.kept)
    assert "fewer than 5 photos of ball (1), ring (1), rod (1)" in done.warnings[-1]
    shutil.copytree(folder / "ball", tmp_path / "lone" / "ball")
    for number in range(3):
        make_photo(tmp_path / "lone" / "background" / f"{number}.png", None, 300 + number)
    alone = learn_classes(things, tmp_path / "lone", features="test_resnet", feature_weights=trunk, store=store)
    assert alone.head.class_names == ("ball",)
    found = predict(things.with_classes(alone.head), folder / "ball").items
    assert all(len(one.labels) == 1 for one in found)


def test_the_commands_of_the_documentation(
    folder: Path, sniper: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SNIPER_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    checkpoint = Path("sniper/objects")
    shutil.copytree(folder, tmp_path / "parts")
    shutil.copytree(folder / "ball", tmp_path / "photos")
    page = (Path(__file__).parents[2] / "docs" / "new_classes.md").read_text(encoding="utf-8")
    block = page.split("<!-- commands: new classes -->\n```bash\n")[1].split("```")[0]
    learned, predicted = (sniper(*shlex.split(line)[1:]) for line in block.splitlines())
    assert (learned.code, predicted.code) == (0, 0), (learned.lines, predicted.lines)
    assert "3 classes (ball, ring, rod) from 18 photos" in learned.out
    file = tmp_path / "parts.safetensors"
    assert file.with_suffix(".jpg").is_file()
    entries = json.loads((tmp_path / "found" / "predictions.json").read_text())
    assert len(entries) == 6
    assert {one["class"] for entry in entries for one in entry["detections"]} <= set(SHAPES)
    assert "threshold" in sniper("classes", "list", file).out
    rejecting = shlex.split(block.splitlines()[1])[1:]
    assert sniper(*rejecting[:-1], "all", "--reject-below", 1).code == 0
    assert all(not one["detections"] for one in json.loads((tmp_path / "all" / "predictions.json").read_text()))
    same = load_model(checkpoint, device="cpu", classes=file)
    assert same.class_names == ("ball", "ring", "rod")
    assert same.classes == file
    assert sniper("classes", "remove", file, "ring", "-o", tmp_path / "two.safetensors").code == 0
    assert package.load_model(checkpoint, classes=tmp_path / "two.safetensors").class_names == ("ball", "rod")


def _refused(done: Any) -> str:
    assert done.code == 2, done
    assert done.lines[-1].startswith("error: ")
    assert not any("Traceback" in line for line in done.lines)
    return done.lines[-1]


def test_what_cannot_work_is_refused_in_one_sentence(
    trained: Trained, folder: Path, sniper: Callable[..., Any], tmp_path: Path, learned: LearnedClasses
) -> None:
    checkpoint, file = trained.run.folder, tmp_path / "parts.safetensors"
    learn = ("classes", "learn", checkpoint)
    assert "no subfolders" in _refused(sniper(*learn, folder / "ball", "-o", file))
    shutil.copytree(folder / "ball", tmp_path / "one" / "ball")
    assert "one class, ball, and nothing to tell it from" in _refused(sniper(*learn, tmp_path / "one", "-o", file))
    (tmp_path / "one" / "rod").mkdir()
    assert "rod has no photo" in _refused(sniper(*learn, tmp_path / "one", "-o", file))
    (tmp_path / "one" / "rod" / "bad.png").write_bytes(b"no image")
    assert "bad.png" in _refused(sniper(*learn, tmp_path / "one", "-o", file))
    shutil.copy(folder / "ball" / "0.png", tmp_path / "one" / "rod" / "bad.png")
    assert "is the same photo as" in _refused(sniper(*learn, tmp_path / "one", "-o", file))
    assert "is not there" in _refused(sniper(*learn, tmp_path / "nowhere", "-o", file))
    assert "expected a detector and a folder, got 3 paths" in _refused(sniper(*learn, folder, folder, "-o", file))
    assert "sniper/object: no such checkpoint" in _refused(
        sniper("classes", "learn", "sniper/object", folder, "-o", file)
    )
    assert "written as .safetensors" in _refused(sniper(*learn, folder, "-o", tmp_path / "parts.pt"))
    assert "--feature-weights" in _refused(sniper(*learn, folder, "-o", file, "--feature-weights", "x.pth"))
    assert "expected torchvision/<model>" in _refused(sniper(*learn, folder, "-o", file, "--features", "resnott"))
    assert not file.exists()
    other = str(learned.path)  # of another network
    predicted = sniper("predict", checkpoint, folder / "ball", "--classes", other, "-o", tmp_path / "out")
    assert predicted.code == 0  # crops of any detector's regions are described by the same trunk
    added = sniper("classes", "add", other, checkpoint, folder, "-o", file)
    assert "learned with another detector" in _refused(added)
    assert "give their file with --classes" in _refused(
        sniper("predict", checkpoint, folder / "ball", "--reject-below", 0.5)
    )
    with pytest.raises(RecipeError, match=r"inference\.reject_below=0\.5 is for learned classes"):
        load_model(checkpoint, overrides=["inference.reject_below=0.5"])
    assert "holds no learned classes" in _refused(
        sniper("predict", checkpoint, folder / "ball", "--classes", trained.run.checkpoint)
    )
