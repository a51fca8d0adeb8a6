"""The recipe: every setting of a run in one typed document, from YAML and ``--set a.b=c``.

Each part's settings live beside the code they configure; this module joins them, names what is wrong in one
sentence and writes the resolved recipe that is kept with every run and inside every checkpoint.
"""

import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, Field, ValidationError

from sniper.chips.epoch import ChipConfig
from sniper.config import Config
from sniper.detectors.sniper import SniperConfig
from sniper.errors import RecipeError
from sniper.evaluation.coco import CocoEvalConfig
from sniper.files import write_text
from sniper.inference.pyramid import InferenceConfig
from sniper.loader.stream import LoaderConfig
from sniper.loader.transforms import AugmentConfig
from sniper.scales import PyramidConfig
from sniper.training.loop import TrainConfig


class DataConfig(Config):
    """The datasets. Forms (COCO JSON, YOLO, Pascal VOC) are found by themselves from the path."""

    train: str | None = Field(
        None, description="dataset to learn from: COCO JSON, YOLO data.yaml or folder, VOC folder"
    )
    train_split: str | None = Field(None, description="split of the training dataset, where it holds several (train)")
    evaluate: str | None = Field(None, description="dataset to evaluate on; none: no evaluation while training")
    evaluate_split: str | None = Field(
        None, description="split of the evaluation dataset, where it holds several (val)"
    )
    format: Literal["coco", "yolo", "voc"] | None = Field(None, description="form of the datasets; none: found")
    image_root: str | None = Field(None, description="folder that file names are relative to; none: found")
    classes: tuple[str, ...] | None = Field(
        None, description="classes to use, in order; none: those of the training data"
    )


class SamplerConfig(Config):
    """What training looks at. ``tiles`` and ``whole`` are the usual alternatives, for honest comparisons."""

    method: Literal["chips", "tiles", "whole"] = Field(
        "chips", description="object-driven chips; uniform tiles of every level; whole images at every level"
    )
    tile_overlap: float = Field(0.2, ge=0, lt=1, description="tiles: share that neighbours have in common")
    tile_min_visible: float = Field(
        0.5, gt=0, le=1, description="tiles: an object counts in a tile that shows at least this share of it"
    )


class Recipe(Config):
    """One run, whole."""

    description: str = Field("", description="what this recipe is for, how long it takes on what, and its score")
    data: DataConfig = DataConfig()
    pyramid: PyramidConfig = PyramidConfig()
    chips: ChipConfig = ChipConfig()
    sampler: SamplerConfig = SamplerConfig()
    loader: LoaderConfig = LoaderConfig()
    augment: AugmentConfig = AugmentConfig()
    model: SniperConfig = SniperConfig()
    train: TrainConfig = TrainConfig()
    inference: InferenceConfig = InferenceConfig()
    evaluation: CocoEvalConfig = CocoEvalConfig()

    @classmethod
    def load(cls, source: str | Path, overrides: Iterable[str] = ()) -> Self:
        """A recipe from a YAML file or from the name of a shipped one, with ``a.b=c`` settings on top.

        Raises:
            RecipeError: no such recipe, not YAML, an unknown key (the nearest is named) or a wrong value.
        """
        settings = _read_yaml(source)
        for override in overrides:
            _set(settings, override)
        return cls.parse(settings, str(source))

    @classmethod
    def parse(cls, settings: Mapping[str, Any], place: str = "recipe") -> Self:
        """A recipe from plain values; ``place`` names their origin in errors."""
        try:
            return cls.model_validate(settings)
        except ValidationError as error:
            raise RecipeError(f"{place}: {_sentence(cls, error)}") from error

    def to_yaml(self) -> str:
        """The whole recipe as YAML, every setting written out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    def save(self, path: Path | str) -> None:
        """Write the whole recipe as YAML."""
        write_text(path, self.to_yaml())


def shipped_recipes() -> dict[str, Path]:
    """Recipes inside the package by name (``mobilenetv2``, ...)."""
    folder = Path(str(resources.files("sniper"))) / "recipes"
    return {str(path.relative_to(folder).with_suffix("")): path for path in sorted(folder.rglob("*.yaml"))}


def _read_yaml(source: str | Path) -> dict[str, Any]:
    path = Path(source)
    shipped = shipped_recipes()
    if not path.is_file() and str(source) in shipped:
        path = shipped[str(source)]
    if not path.is_file():
        known = ", ".join(shipped)
        raise RecipeError(f"no recipe {source}: expected a YAML file or one of the shipped recipes ({known})")
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise RecipeError(
            f"{path}{line}: not valid YAML ({getattr(error, 'problem', None) or 'wrong encoding'})"
        ) from error
    if settings is None:
        return {}
    if not isinstance(settings, dict):
        raise RecipeError(f"{path}: expected settings as 'key: value' at the top, got {type(settings).__name__}")
    return settings


def _set(settings: dict[str, Any], override: str) -> None:
    """Apply one ``a.b=c``; the value is read as YAML."""
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"--set {override}: expected KEY=VALUE, for example train.learning_rate=0.01")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"--set {override}: {text!r} is not a YAML value") from error
    if isinstance(value, str):
        value = _number(value)
    *parents, last = key.strip().split(".")
    place = settings
    for parent in parents:
        inner = place.get(parent)
        if not isinstance(inner, dict):
            inner = {}
        place[parent] = inner
        place = inner
    place[last] = value


def _number(text: str) -> float | str:
    """YAML 1.1 reads 1e-4 as a string; a person means the number."""
    try:
        return float(text)
    except ValueError:
        return text


def _sentence(model: type[BaseModel], error: ValidationError) -> str:
    """The first problem of a validation as one sentence."""
    first = error.errors()[0]
    location = [str(part) for part in first["loc"]]
    dotted = ".".join(location)
    if first["type"] == "extra_forbidden":
        siblings = _keys_at(model, location[:-1])
        near = difflib.get_close_matches(location[-1], siblings, n=1, cutoff=0.5)
        prefix = ".".join(location[:-1])
        full = f"{prefix}.{near[0]}" if near and prefix else (near[0] if near else "")
        hint = f"did you mean {full}?" if full else f"known here: {', '.join(siblings)}"
        return f"{dotted} is not a setting; {hint}"
    message = first["msg"].removeprefix("Value error, ")
    return f"{dotted}: {message[0].lower()}{message[1:]}, got {first['input']!r}"


def _keys_at(model: type[BaseModel], location: list[str]) -> list[str]:
    """Names of the settings at a dotted place; unions and lists are looked through."""
    current: list[type[BaseModel]] = [model]
    for part in location:
        inner = [m for c in current if part in c.model_fields for m in _models_in(c.model_fields[part].annotation)]
        current = inner or current
    return sorted({name for m in current for name in m.model_fields})


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """Settings models that occur in a type."""
    if (
        isinstance(annotation, type)
        and not isinstance(annotation, types.GenericAlias)
        and issubclass(annotation, BaseModel)
    ):
        return [annotation]
    return [model for inner in typing.get_args(annotation) for model in _models_in(inner)]
