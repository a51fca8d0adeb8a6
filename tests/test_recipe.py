"""Recipes: from YAML and the command line, and what is said when they are wrong."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from devices import TRAIN_DEVICE
from facts import facts
from sniper.data.building import ObjectRows, build_table
from sniper.data.table import AnnotationTable
from sniper.detectors.config import CustomConfig
from sniper.detectors.from_torchvision.builders import BUILDERS
from sniper.detectors.from_torchvision.config import TorchvisionConfig
from sniper.detectors.from_transformers.architectures import ARCHITECTURES
from sniper.detectors.from_transformers.models import PUBLISHED, RECIPES
from sniper.detectors.original.config import OriginalConfig
from sniper.detectors.sniper.config import SniperConfig
from sniper.errors import RecipeError
from sniper.pipeline.detectors import build_detector, resolve_pyramid
from sniper.pipeline.train import train
from sniper.pyramid import PyramidConfig
from sniper.recipe import Recipe, shipped_recipes
from sniper.training.optim import learning_rate, parameter_groups

SHIPPED = ("demo", "mobilenetv2", "resnet50", "resnet101")


def test_shipped_recipes_load_and_say_what_they_are_for() -> None:
    found = shipped_recipes()
    assert set(SHIPPED) <= set(found)
    for name, path in found.items():
        recipe = Recipe.load(name)
        assert recipe == Recipe.load(path)
        assert recipe.description.strip()
        assert path.read_text().startswith("# sniper "), "opens with the command"
        given = ("rfcn3k/imagenet3k", "rfcn3k/objectness", "openimages/resnet101", "faces/wider")
        published = name.startswith("original/") or name in given
        assert (recipe.pyramid.levels == "auto") != published


def _two_images(folder: Path) -> AnnotationTable:
    random = np.random.default_rng(0)
    boxes = np.array([[10, 10, 40, 30], [60, 50, 100, 90], [20, 30, 50, 60]], np.float64)
    for name in ("a.png", "b.png"):
        Image.fromarray(random.integers(0, 255, (100, 120, 3), dtype=np.uint8)).save(folder / name)
    return build_table(
        ObjectRows(np.array([0, 0, 1]), boxes, np.array([0, 1, 0], np.int32)),
        source="two images",
        root=folder,
        file_names=["a.png", "b.png"],
        image_ids=None,
        sizes_wh=np.array([[120, 100], [120, 100]]),
        class_names=["x", "y"],
    )


def _one_step(name: str, *smaller: str) -> list[str]:
    fewer = ["train.steps=1", f"train.device={TRAIN_DEVICE}", "train.precision=fp32", "train.tensorboard=false"]
    return [*fewer, "model.weights=null", "pyramid.chip_px=128", "loader.batch_size=2", *smaller]


@pytest.mark.parametrize(
    ("name", "smaller"),
    [
        ("demo", []),
        ("mobilenetv2", []),
        ("resnet50", ["model.rpn_channels=32", "model.head_channels=16", "model.head_width=64"]),
        # The same settings on the small sister: a ResNet-101 step takes seconds and a gigabyte.
        ("resnet101", ["model.backbone=timm/test_resnet", "model.head_width=64"]),
        ("openimages/resnet50", ["model.backbone=timm/test_resnet", "model.head_width=64"]),
        ("openimages/resnet101", ["model.backbone=timm/test_resnet", "model.head_width=64"]),
    ],
)
def test_every_shipped_recipe_makes_a_step(tmp_path: Path, name: str, smaller: list[str]) -> None:
    done = train(name, overrides=_one_step(name, *smaller), data=_two_images(tmp_path), root=tmp_path / "runs")
    assert done.result.finished
    assert done.result.step == 1
    assert done.checkpoint.is_file()


ORIGINAL = {
    "coco-resnet101": (0.12, 16, {"backbone", "rpn", "reduction", "head"}),
    "coco-resnet50": (0.12, 16, {"backbone", "rpn", "reduction", "head"}),
    "coco-mobilenetv2": (0.2, 42, {"backbone", "rpn", "reduction", "head"}),
    "coco-resnet101-mask": (0.12, 10, {"backbone", "rpn", "reduction", "head", "masks"}),
    "coco-resnet101-autofocus": (0.12, 16, {"backbone", "rpn", "reduction", "head", "focus"}),
    "voc-resnet101": (0.12, 16, {"backbone", "rpn", "reduction", "head"}),
}


def test_recipes_of_2018_are_all_here() -> None:
    assert {f"original/{name}" for name in ORIGINAL} == {name for name in shipped_recipes() if name.startswith("orig")}


@pytest.mark.parametrize("name", ORIGINAL)
def test_recipes_of_2018_have_its_effective_settings(name: str) -> None:
    recipe = Recipe.load(f"original/{name}")
    rate, batch, parts = ORIGINAL[name]
    assert (recipe.train.learning_rate, recipe.loader.batch_size, recipe.pyramid.chip_px) == (rate, batch, 512)
    assert learning_rate(recipe.train, 0.0, 0) == pytest.approx(8 * 0.0005, rel=1e-5)
    assert learning_rate(recipe.train, 5.33 / 7, 10**6) == pytest.approx(rate / 10)
    assert len(recipe.pyramid.levels) == 3
    assert recipe.model.kind == "original"
    assert recipe.model.rois.rule == "original"
    corrected = Recipe.load(f"original/{name}", ["model.rois.rule=ignore"])
    assert corrected.model.rois.rule == "ignore"
    with torch.device("meta"):
        detector = build_detector(recipe, 80)
    assert {part for part, _ in detector.named_children()} - {"train_anchors", "test_anchors"} == parts
    factors = [group["rate_factor"] for group in parameter_groups(detector, recipe.train)]
    assert sorted(set(factors)) == [0.01, 1.0]


@pytest.mark.parametrize(("name", "rule"), [("coco-mobilenetv2", "original"), ("coco-resnet50", "ignore")])
def test_recipes_of_2018_make_a_step(tmp_path: Path, name: str, rule: str) -> None:
    small = [
        "pyramid.levels=[{scale: 1}]",
        "pyramid.chip_px=64",
        "chips.stride_px=auto",
        "negatives.proposals=null",
        f"model.rois.rule={rule}",
    ]
    overrides = [one for one in _one_step(name, *small) if one != "model.weights=null"]
    done = train(
        f"original/{name}",
        overrides=[*overrides, "model.focus=true", "model.rois.per_chip=16"],
        data=_two_images(tmp_path),
        root=tmp_path / "runs",
    )
    assert done.result.finished
    assert "loss/focus" in (done.folder / "metrics.csv").read_text()


def test_automatic_levels_go_by_the_stride_of_the_network(tmp_path: Path) -> None:
    table, given = _two_images(tmp_path), PyramidConfig(chip_px=128, max_scale=16)
    factors = {
        name: resolve_pyramid(Recipe(model=OriginalConfig(network=name), pyramid=given), table)[1].levels[0].scale
        for name in ("sniper_resnet101", "sniper_mobilenetv2")
    }
    assert factors["sniper_resnet101"] == resolve_pyramid(Recipe(pyramid=given), table)[1].levels[0].scale
    assert factors["sniper_mobilenetv2"] == pytest.approx(2 * factors["sniper_resnet101"], rel=0.05)


def test_yaml_and_settings_on_top(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("train: {learning_rate: 1e-3, epochs: 2}\ndata: {train: 2024, classes: [1, car]}\n")
    recipe = Recipe.load(
        file,
        [
            "train.learning_rate=1e-4",
            "train.step_at=[0.5, 9e-1]",
            "train.clip_norm=5",
            "train.ema=null",
            "model.anchors.scales=[1, 2.5]",
            "inference.merge.method=hard",
            " pyramid.levels = [{scale: 2, train_range_px: [0, 50]}, {long_px: 256, train_range_px: [30, null]}]",
            "pyramid.levels.1.long_px=512",
            "description='a: b'",
            "data.evaluate='a # b'",
        ],
    )
    assert recipe.train.learning_rate == 1e-4
    assert recipe.train.step_at == (0.5, 0.9)
    assert (recipe.train.clip_norm, recipe.train.ema, recipe.train.epochs) == (5.0, None, 2)
    assert recipe.model.anchors.scales == (1.0, 2.5)
    assert recipe.inference.merge.method == "hard"
    assert [level.long_px for level in recipe.pyramid.levels] == [None, 512]
    assert recipe.pyramid.levels[1].train_range_px == (30, None)
    assert (recipe.data.train, recipe.data.classes) == ("2024", ("1", "car"))
    assert (recipe.description, recipe.data.evaluate) == ("a: b", "a # b")


def test_every_family_of_torchvision_has_a_recipe() -> None:
    recipes = {f"torchvision/{builder.recipe}" for builder in BUILDERS.values()}
    assert recipes == {name for name in shipped_recipes() if name.startswith("torchvision/")}
    for name in recipes:
        assert Recipe.load(name).model == TorchvisionConfig(name=name.removeprefix("torchvision/"))
    assert Recipe.load(min(recipes), ["model.weights=null"]).model.leading_frozen == 0
    with pytest.raises(RecipeError, match=r"model\.name: expected .*retinanet_resnet50_fpn_v2"):
        Recipe.parse({"model": {"kind": "torchvision", "name": "retinanet"}})
    with pytest.raises(RecipeError, match="no ImageNet weights"):
        Recipe.parse({"model": {"kind": "torchvision", "name": "ssd300_vgg16", "weights": "imagenet"}})


def test_every_family_of_transformers_has_a_recipe() -> None:
    recipes = {f"transformers/{name}" for name in RECIPES.values()}
    assert recipes == {name for name in shipped_recipes() if name.startswith("transformers/")}
    for name in recipes:
        recipe = Recipe.load(name)
        assert f"transformers/{PUBLISHED[recipe.model.name].recipe}" == name
        kind = ARCHITECTURES[recipe.model.name]["model_type"]
        assert f"transformers/{RECIPES[kind]}" == name
        assert recipe.inference.window_px == recipe.pyramid.chip_px, "as many queries for a window as for a chip"
    with pytest.raises(RecipeError, match=r"model\.weights: expected .*library"):
        Recipe.load(name, ["model.weights=coco"])


def test_a_part_given_in_part_keeps_the_rest_that_stands_there(tmp_path: Path) -> None:
    """SSH's anchors are as large as chips: with the border of other detectors most of them never trained."""
    file = tmp_path / "faces.yaml"
    file.write_text("model:\n  kind: ssh\n  weights: null\n  anchor_match:\n    positive_iou: 0.4\n")
    match = Recipe.load(file).model.anchor_match
    assert (match.positive_iou, match.negative_iou, match.border_px) == (0.4, 0.3, 512)
    plain = OriginalConfig(network="sniper_resnet101").rois
    assert plain.rule == "original"  # which a part's own defaults have not
    given = {"kind": "original", "network": "sniper_resnet101", "rois": {"positive_iou": 0.6}}
    assert OriginalConfig.model_validate(given).rois == plain.model_copy(update={"positive_iou": 0.6})


def test_kinds_of_models() -> None:
    assert Recipe.parse({"model": {"stride": 8}}).model == SniperConfig(stride=8)
    assert Recipe.parse({"model": {"kind": "sniper", "stride": 8}}).model == SniperConfig(stride=8)
    original = Recipe.load("mobilenetv2", ["model={kind: original, network: sniper_mobilenetv2}"]).model
    assert original == OriginalConfig(network="sniper_mobilenetv2")
    own = Recipe.parse({"model": {"kind": "custom", "name": "RetinaNet"}})
    assert own.model == CustomConfig(name="RetinaNet")
    for recipe in (Recipe(), Recipe(model=original), own):
        assert Recipe.parse(recipe.model_dump(mode="json")) == recipe
    with pytest.raises(RecipeError, match=facts("RetinaNet", "detector")):
        build_detector(own, 3)


HEAVY = ("numpy", "torch", "torchvision", "transformers", "accelerate", "numba", "cv2", "timm", "matplotlib")


def test_reading_a_recipe_imports_nothing_heavy() -> None:
    """In a fraction of a second, then, and where none of them is installed."""
    code = f"""
import sys
from sniper.recipe import Recipe, shipped_recipes
from sniper.errors import RecipeError
for name in shipped_recipes():
    Recipe.parse(Recipe.load(name, ["train.learning_rate=0.1"]).model_dump(mode="json"))
try:
    Recipe.parse({{"train": {{"learning_rat": 1}}}})
except RecipeError as error:
    print(error)
print([name for name in {HEAVY} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "recipe: train.learning_rat is not a setting; did you mean train.learning_rate?", "[]",
    ]  # fmt: skip


def test_a_length_set_by_hand_replaces_the_recipes_own(tmp_path: Path) -> None:
    assert Recipe.load("mobilenetv2").train.epochs == 12
    minutes = Recipe.load("mobilenetv2", ["train.minutes=1.5"]).train
    assert (minutes.epochs, minutes.steps, minutes.minutes) == (None, None, 1.5)
    resolved = tmp_path / "recipe.yaml"
    Recipe.load("mobilenetv2").save(resolved)
    assert Recipe.load(resolved, ["train.steps=3"]).train.epochs is None
    with pytest.raises(RecipeError, match="expected one length"):
        Recipe.load("mobilenetv2", ["train.steps=3", "train.minutes=1"])


def test_a_rate_set_by_hand_is_for_the_batch_that_there_is() -> None:
    assert Recipe.load("mobilenetv2", ["loader.batch_size=2"]).train.rate_batch == 8
    assert Recipe.load("mobilenetv2", ["train.learning_rate=0.001"]).train.rate_batch is None
    given = Recipe.load("mobilenetv2", ["train.learning_rate=0.001", "train.rate_batch=4"])
    assert given.train.rate_batch == 4
    assert given.changed(["train.learning_rate=0.002"]).train.rate_batch is None


def test_what_is_written_is_what_was(tmp_path: Path) -> None:
    for name in (*SHIPPED, "original/coco-mobilenetv2"):
        recipe = Recipe.load(name, ["train.learning_rate=1e-5", "pyramid.levels=[{scale: 3}, {long_px: 512}]"])
        recipe.save(tmp_path / "a.yaml")
        assert Recipe.load(tmp_path / "a.yaml") == recipe
        assert Recipe.parse(recipe.model_dump(mode="json")) == recipe
        assert "\n  learning_rate: 1.0e-05\n" in recipe.to_yaml()
    resolved, _ = resolve_pyramid(Recipe(), _two_images(tmp_path))
    resolved.save(tmp_path / "b.yaml")
    assert Recipe.load(tmp_path / "b.yaml") == resolved
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert Recipe.load(tmp_path / "empty.yaml") == Recipe()


# What a wrong recipe is, and what its one sentence must name: the setting, what was expected, what came, what is near.
WRONG: dict[str, tuple[str | int, ...]] = {
    "train: {learning_rat: 1}": ("train.learning_rat", "train.learning_rate"),
    "learning_rate: 1": ("learning_rate", "train.learning_rate"),
    "trian: {}": ("trian", "train"),
    "train: {qqq: 1}": ("train.qqq", "accumulate", "best_metric"),
    "inference: {merge: {sigm: 1}}": ("inference.merge.sigm", "inference.merge.sigma"),
    "pyramid: {levels: [{sclae: 2}]}": ("pyramid.levels.0.sclae", "pyramid.levels.0.scale"),
    "pyramid: {levels: [{scale: x}]}": ("pyramid.levels.0.scale", "number", "'x'"),
    "pyramid: {levels: [{scale: 2, long_px: 3}]}": ("pyramid.levels.0", "either scale"),
    "pyramid: {levels: 3}": ("pyramid.levels", "'auto'", "list", 3),
    "pyramid: {levels: []}": ("pyramid.levels", "'auto'", "at least 1", "[]"),
    "pyramid: {chip_px: big}": ("pyramid.chip_px", "integer", "'auto'", "'big'"),
    "pyramid: {chip_px: 5}": ("pyramid.chip_px", "greater than or equal to 64", "'auto'", 5),
    "loader: {workers: many}": ("loader.workers", "integer", "'auto'", "'many'"),
    "model: {stride: 12}": ("model.stride", 8, 16, 32, 12),
    "model: {kind: orginal}": ("model.kind", "sniper", "custom", "'orginal'", "mean original"),
    "model: {kind: 3}": ("model.kind", "sniper", "original", "custom", 3),
    "model: {network: sniper_resnet50}": ("model.network", "kind original", "kind sniper"),
    "model: {kind: original, backbone: timm/resnet18}": ("model.backbone", "kind sniper"),
    "model: {kind: original, netwrok: x}": ("model.netwrok", "model.network"),
    "model: {kind: original, network: resnet}": (
        "model.network",
        "'sniper_resnet101'",
        "'sniper_resnet50'",
        "'resnet'",
    ),
    "model: {kind: original, focus_cells: {smal_px: 1}}": ("model.focus_cells.smal_px", "model.focus_cells.small_px"),
    "model: {kind: custom}": ("model", "name"),
    "model: {anchors: {scale: [1]}}": ("model.anchors.scale", "model.anchors.scales"),
    "backbone: timm/resnet18": ("backbone", "model.backbone"),
    "model:": ("model", "key: value", "None"),
    "train: [1]": ("train", "key: value", "[1]"),
    "train: {learning_rate: fast}": ("train.learning_rate", "number", "'fast'"),
    "train: {learning_rate: -1}": ("train.learning_rate", "greater than 0", "-1"),
    "train: {learning_rate: .nan}": ("train.learning_rate", "greater than 0", "nan"),
    "train: {epochs: 1, steps: 3}": ("train", "minutes", "got epochs and steps"),
    "chips: {stride_px: [60, 50]}": ("chips", "stride_px", 60, 50),
    "1: 2": (1,),
    "- a": ("key: value", "list"),
    "a: b: c": ("line 1", "YAML"),
    "a: 1\nb: [1, 2\nc: 3": ("line 3", "YAML"),
    "a: !!python/object:os.system {}": ("line 1", "YAML"),
    "a: \x07": ("YAML",),
}


@pytest.mark.parametrize("text", WRONG)
def test_wrong_recipes_are_one_sentence(tmp_path: Path, text: str) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(text)
    with pytest.raises(RecipeError, match=facts(*WRONG[text])) as caught:
        Recipe.load(file)
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("train.learning_rat=1", ("train.learning_rat", "train.learning_rate")),
        ("train.learning_rate", ("--set train.learning_rate", "KEY=VALUE")),
        ("=1", ("=1", "KEY=VALUE")),
        ("train.=1", ("train.=1", "KEY=VALUE")),
        ("train={", ("train={", "'{'", "YAML")),
        ("train.epochs.x=1", ("train.epochs", "number", "{'x': 1}")),
        ("train.step_at.3=1", ("train.step_at.3=1", "'3'", "list of 1")),
        ("train.step_at.x=1", ("train.step_at.x=1", "'x'", "list of 1")),
    ],
)
def test_wrong_settings_on_top_are_one_sentence(override: str, named: tuple[str, ...]) -> None:
    with pytest.raises(RecipeError, match=facts(*named)) as caught:
        Recipe.load("resnet50", [override])
    assert "\n" not in str(caught.value)


def test_files_that_are_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError,
        match=facts("mobilenet", "YAML", "demo", "mobilenetv2", "original/coco-resnet50", "resnet101"),
    ):
        Recipe.load("mobilenet")
    (tmp_path / "a.yaml").write_bytes(b"a: \xff\xfe")
    with pytest.raises(RecipeError, match=facts("a.yaml", "YAML", "encoding")):
        Recipe.load(tmp_path / "a.yaml")
    with pytest.raises(RecipeError, match="no recipe"):
        Recipe.load(tmp_path)


def test_keys_given_twice_and_words_that_are_no_booleans(tmp_path):
    path = tmp_path / "twice.yaml"
    path.write_text("train:\n  epochs: 2\n  seed: 1\n  epochs: 3\n")
    with pytest.raises(RecipeError, match=facts("twice.yaml", "line 4", "epochs is given twice")):
        Recipe.load(path)
    path.write_text("data:\n  classes: [no, yes, car]\ntrain:\n  tensorboard: no\n", encoding="utf-8-sig")
    recipe = Recipe.load(path, ["train.compile=on"])
    assert recipe.data.classes == ("no", "yes", "car")
    assert (recipe.train.tensorboard, recipe.train.compile) == (False, True)
    recipe.save(path)
    assert Recipe.load(path) == recipe


def test_the_best_weights_are_told_by_a_number_of_the_protocols() -> None:
    def best(*overrides: str) -> str:
        return Recipe.load("mobilenetv2", overrides).train.best_metric

    assert best() == best("evaluation.protocols=[voc, coco]") == "AP"
    assert best("evaluation.protocols=[voc, openimages]") == "VOC_AP50"
    assert best("evaluation.protocols=[openimages]", "train.best_metric=OID_challenge_AP50") == "OID_challenge_AP50"
    assert best("evaluation.protocols=[voc]", "train.best_metric=AP") == "AP", "as it is named; training refuses it"
    with pytest.raises(RecipeError, match="name each one once, got voc, voc"):
        best("evaluation.protocols=[voc, voc]")
    with pytest.raises(RecipeError, match="protocols"):
        best("evaluation.protocols=[pascal]")
