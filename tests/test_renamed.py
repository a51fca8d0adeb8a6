"""Recipes, settings and checkpoints with the names of the version before are read for one version."""

import logging
from pathlib import Path

import pytest
import yaml

from facts import facts
from sniper.detectors.original.config import OriginalConfig
from sniper.errors import RecipeError
from sniper.pyramid import Level
from sniper.recipe import Recipe
from sniper.renamed import with_present_names

FORMER = Path(__file__).parent / "former_recipes"  # saved whole by the version before

# Former setting, its present name, and another value than the default.
NAMES = [
    ("model.maps", "model.feature_levels", 3),
    ("model.beyond", "model.dilation", "dilate"),
    ("model.detections_per_canvas", "model.max_detections", 123),
    ("model.focus_labels.least_px", "model.focus_labels.min_px", 4.0),
    ("pyramid.max_zoom", "pyramid.max_scale", 6.0),
    ("negatives.most_per_positive", "negatives.max_per_positive", 0.7),
    ("negatives.least_finest", "negatives.min_proposals_finest", 9),
    ("negatives.least", "negatives.min_proposals", 5),
    ("negatives.top", "negatives.max_proposals", 77),
    ("negatives.extraction.top", "negatives.extraction.max_per_image", 88),
    ("train.warmup_at_most", "train.warmup_max_share", 0.3),
    ("evaluation.most_detections", "evaluation.max_detections", 450),
    ("original.focus_cells.least_px", "model.focus_cells.min_px", 4.0),
    ("original.network", "model.network", "sniper_resnet50"),
    ("original.masks", "model.masks", True),
]


def _at(recipe: Recipe, dotted: str) -> object:
    value: object = recipe
    for part in dotted.split("."):
        value = getattr(value, part)
    return value


def _nested(dotted: str, value: object) -> dict:
    for part in reversed(dotted.split(".")):
        value = {part: value}
    assert isinstance(value, dict)
    return value


@pytest.mark.parametrize(("former", "now", "value"), NAMES, ids=[former for former, _, _ in NAMES])
def test_former_names_are_read_and_the_present_ones_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, former: str, now: str, value: object
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(_nested(former, value)))
    from_file = Recipe.load(file)
    assert _at(from_file, now) == value
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(told) == 1
    assert str(file) in told[0]
    assert (former if former.partition(".")[0] != "original" else "original is now model with kind") in told[0]

    caplog.clear()
    (tmp_path / "empty.yaml").write_text("")
    on_top = Recipe.load(tmp_path / "empty.yaml", [f"{former}={value}"])
    assert on_top == from_file
    (record,) = caplog.records
    assert former in record.getMessage()
    assert now in record.getMessage()

    caplog.clear()
    inside_a_checkpoint = Recipe.parse(_nested(former, value), "recipe inside a.safetensors")
    assert inside_a_checkpoint == from_file
    assert not [record for record in caplog.records if record.levelno > logging.DEBUG], "nobody wrote that text"


def test_former_names_in_lists(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("pyramid: {levels: [{factor: 2}, {long_px: 512, most_zoom: 3}]}\n")
    expected = (Level(scale=2), Level(long_px=512, max_scale=3))
    assert Recipe.load(file).pyramid.levels == expected
    assert "pyramid.levels.1.most_zoom is now pyramid.levels.1.max_scale" in caplog.text
    changed = Recipe.load(file, ["pyramid.levels.0.factor=4"])
    assert changed.pyramid.levels == (Level(scale=4), expected[1])
    whole = Recipe.load("mobilenetv2", ["pyramid.levels=[{factor: 2}, {long_px: 512, most_zoom: 3}]"])
    assert whole.pyramid.levels == expected
    assert Recipe.parse({"pyramid": {"levels": ({"factor": 2},)}}).pyramid.levels == expected[:1]


def test_former_names_of_metrics(caplog: pytest.LogCaptureFixture) -> None:
    for former, now in (("AP_most", "AP_maxdets"), ("AP50_most", "AP50_maxdets"), ("AR_most", "AR_maxdets")):
        assert Recipe.load("mobilenetv2", [f"train.best_metric={former}"]).train.best_metric == now
        assert f"train.best_metric: {former} is now {now}" in caplog.text
    assert Recipe.load("mobilenetv2", ["train.best_metric=AP_small"]).train.best_metric == "AP_small"


def test_a_name_on_top_of_a_file_wins_whichever_it_is(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    for inside, on_top in (("maps", "feature_levels"), ("feature_levels", "maps")):
        file.write_text(f"model: {{{inside}: 1}}\n")
        assert Recipe.load(file, [f"model.{on_top}=3"]).model.feature_levels == 3


def test_both_names_at_once_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("train: {warmup_at_most: 0.1, warmup_max_share: 0.2}\n")
    with pytest.raises(
        RecipeError, match=facts("mine.yaml", "train.warmup_at_most", "both", "remove train.warmup_at_most")
    ):
        Recipe.load(file)


def test_whole_recipes_of_the_version_before(caplog: pytest.LogCaptureFixture) -> None:
    reference = Recipe.load(FORMER / "sniper.yaml")
    assert reference == Recipe.load(
        "mobilenetv2",
        [
            "pyramid.levels=[{scale: 2.5, train_range_px: [0, 80]}, "
            "{long_px: 512, max_scale: 3, train_range_px: [60, null]}]",
            "model.focus=true",
            "train.rate_batch=null",
            "train.best_metric=AP50_maxdets",
            *(f"{now}={value}" for former, now, value in NAMES if not former.startswith("original.")),
        ],
    )
    caplog.clear()
    original = Recipe.load(FORMER / "original.yaml")
    cells = ["min_px=4", "overlap=small", "loss=balanced"]
    expected = ["model.focus=true", "inference.merge.max_per_image=200", *(f"model.focus_cells.{one}" for one in cells)]
    assert original == Recipe.load("original/coco-resnet101-mask", expected)
    assert "original is now model with kind: original" in caplog.text
    for recipe, name in ((reference, "sniper"), (original, "original")):
        plain = yaml.safe_load((FORMER / f"{name}.yaml").read_text())
        assert Recipe.parse(plain) == recipe
        assert plain == yaml.safe_load((FORMER / f"{name}.yaml").read_text()), "what is given stays as it is"


def test_settings_of_the_2018_detectors_on_top() -> None:
    masks = Recipe.load("original/coco-resnet50", ["original.masks=true"])
    assert masks == Recipe.load("original/coco-resnet50", ["model.masks=true"])
    switched = Recipe.load("mobilenetv2", ["original.network=sniper_mobilenetv2", "original.masks=true"])
    assert switched.model == OriginalConfig(network="sniper_mobilenetv2", masks=True)
    assert switched.train == Recipe.load("mobilenetv2").train
    twice = ["model.focus_cells.min_px=3", "original.focus_cells.least_px=4"]
    assert Recipe.load("original/coco-resnet50", twice).model.focus_cells.min_px == 4
    assert Recipe.load("original/coco-resnet50", ["original=null"]).model == Recipe().model
    assert Recipe.load("mobilenetv2", ["original=null"]) == Recipe.load("mobilenetv2")
    with pytest.raises(RecipeError, match=facts("model.netwrok", "did you mean model.network")):
        Recipe.load("original/coco-resnet50", ["original.netwrok=sniper_resnet101"])


def test_wrong_shapes_are_left_to_the_sentence() -> None:
    for settings in ({"model": 3}, {"pyramid": {"levels": 3}}, {"original": 3}, {1: {"top": 2}}):
        assert with_present_names(settings).settings
        with pytest.raises(RecipeError, match=r"expected|is not a setting|^recipe: 1"):
            Recipe.parse(settings)
