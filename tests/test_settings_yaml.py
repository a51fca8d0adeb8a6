"""YAML from anywhere: what a few lines of it stand for is bounded."""

import itertools
import string
from pathlib import Path

import pytest
import yaml

from facts import facts
from sniper.errors import RecipeError
from sniper.recipe import Recipe
from sniper.settings import read_yaml


def _bomb(levels: int) -> str:
    """Each line is nine times the line before."""
    names = string.ascii_lowercase[: levels + 1]
    lines = [f"a: &a [{', '.join('1' * 9)}]"]
    lines += [f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]" for before, name in itertools.pairwise(names)]
    return "\n".join(lines)


def test_aliases_that_explode_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "bomb.yaml"
    file.write_text(_bomb(20))
    with pytest.raises(RecipeError, match=facts("bomb.yaml", "line 1", "YAML", "100,000")):
        Recipe.load(file)
    with pytest.raises(RecipeError, match="not a YAML value"):
        Recipe.load("mobilenetv2", [f"data={{{_bomb(20).replace(chr(10), ', ')}}}"])


def test_a_value_inside_itself_is_refused(tmp_path: Path) -> None:
    for text in ("train: &a [*a]", "train: &a {steps: *a}"):
        (tmp_path / "r.yaml").write_text(text)
        with pytest.raises(RecipeError, match=facts("r.yaml", "line 1", "YAML", "alias")):
            Recipe.load(tmp_path / "r.yaml")


def test_usual_aliases_and_long_lists_are_read() -> None:
    assert read_yaml("a: &x {b: 1e-4}\nc: {<<: *x, d: *x}") == {"a": {"b": 1e-4}, "c": {"b": 1e-4, "d": {"b": 1e-4}}}
    names = [f"class {number}" for number in range(20_000)]
    assert read_yaml(yaml.safe_dump(names)) == names
    assert read_yaml("") is None


def test_nesting_without_end_is_no_trace() -> None:
    with pytest.raises(yaml.YAMLError, match="nested too deeply"):
        read_yaml("[" * 5000)
