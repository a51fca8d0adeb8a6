"""The list of settings: what a recipe takes, each with its meaning."""

import pytest

from rectangle_set import TINY
from sniper.described import settings_of
from sniper.recipe import Recipe
from sniper.settings import set_value

SETTINGS = list(settings_of(Recipe))


def test_every_setting_has_a_meaning_and_says_what_it_takes() -> None:
    assert len(SETTINGS) > 150
    assert [setting.name for setting in SETTINGS if not (setting.meaning and setting.values)] == []


def test_names_and_defaults_are_those_that_set_takes() -> None:
    """Each default, set by its name, gives the default recipe; of the detectors those of the kind that is built."""
    recipe = Recipe.parse({})
    for setting in SETTINGS:
        other_kind = "(kind " in setting.meaning and "(kind sniper)" not in setting.meaning
        if "[]" in setting.name or other_kind or setting.name.startswith("inference.focus."):
            continue
        settings: dict = {}
        set_value(settings, f"{setting.name}={setting.default}")
        value, given = recipe, settings
        for part in setting.name.split("."):
            value, given = getattr(value, part), given[part]
        assert Recipe.parse(settings).model_dump(mode="json") == recipe.model_dump(mode="json"), setting


def test_the_settings_of_the_tests_are_found_by_section_and_by_word() -> None:
    names = {setting.name for setting in SETTINGS}
    assert {override.partition("=")[0] for override in TINY} <= names
    rates = [setting.name for setting in SETTINGS if setting.matches("Rate")]
    assert "train.learning_rate" in rates
    assert "loader.batch_size" not in rates
    section = [setting.name for setting in SETTINGS if setting.matches("pyramid.levels")]
    assert "pyramid.levels[].scale" in section


def test_values_of_a_recipe_take_the_place_of_the_defaults() -> None:
    recipe = Recipe.load("mobilenetv2", ["train.learning_rate=0.25", "model.anchors.rounding=half_up"])
    listed = list(settings_of(Recipe, default=recipe))
    shown = {setting.name: setting.default for setting in reversed(listed)}  # of a name, the first: of the kind built
    assert shown["train.learning_rate"] == "0.25"
    assert shown["model.anchors.rounding"] == "half_up"


@pytest.mark.parametrize("name", ["train.step_at", "train.rate_factors", "loader.workers", "train.clip_norm"])
def test_types_are_told_in_words(name: str) -> None:
    values = {setting.name: setting.values for setting in SETTINGS}[name]
    expected = {
        "train.step_at": "list of number",
        "train.rate_factors": "text: number",
        "loader.workers": "integer >= 0 or auto",
        "train.clip_norm": "number > 0 or null",
    }
    assert values == expected[name]
