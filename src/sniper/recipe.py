"""The recipe: every setting of a run in one typed document, from YAML and ``--set a.b=c``.

Each part's settings live beside the code they configure; this module joins them and writes the resolved recipe that is
kept with every run and inside every checkpoint. ``sniper.settings`` reads them and names what is wrong.
"""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import ConfigDict, Field, ValidationError, field_validator, model_validator

from sniper.chips.config import ChipConfig, NegativeConfig
from sniper.data.options import Format, IgnorableFlag
from sniper.detectors.config import ModelConfig
from sniper.detectors.sniper.config import SniperConfig
from sniper.errors import RecipeError
from sniper.evaluation.config import BEST_NUMBERS, CocoEvalConfig
from sniper.files import write_text
from sniper.inference.config import InferenceConfig, ProposeConfig
from sniper.loader.config import AugmentConfig, LoaderConfig
from sniper.pixels.sample_map import FULL_RANGE, SampleMap
from sniper.pyramid import PyramidConfig
from sniper.renamed import Rename, Renamed, set_by_any_name, with_present_names
from sniper.settings import Config, read_yaml, sentence
from sniper.training.config import TrainConfig

logger = logging.getLogger("sniper")


Sample = Annotated[int, Field(ge=0, le=65535)]
Band = Annotated[int, Field(ge=1)]


class DataConfig(Config):
    """The datasets. Forms (COCO JSON, YOLO, Pascal VOC, OpenImages) are found by themselves from the path."""

    model_config = ConfigDict(coerce_numbers_to_str=True)  # YAML reads a folder or class called 2024 as a number

    train: str | None = Field(
        None, description="dataset to learn from: COCO JSON, YOLO data.yaml or folder, VOC or OpenImages folder"
    )
    train_split: str | None = Field(
        None, description="split of the training dataset, where it holds several; none: train"
    )
    evaluate: str | None = Field(None, description="dataset to evaluate on; none: no evaluation while training")
    evaluate_split: str | None = Field(
        None, description="split of the evaluation dataset, where it holds several; none: val, or test if there is none"
    )
    format: Format | None = Field(None, description="form of the datasets; none: found")
    evaluate_format: Format | None = Field(None, description="form of the evaluation dataset; none: that of format")
    image_root: str | None = Field(None, description="folder that file names are relative to; none: found")
    evaluate_image_root: str | None = Field(
        None, description="the same for the evaluation dataset; none: that of image_root"
    )
    classes: tuple[str, ...] | None = Field(
        None, description="classes to use, in order; none: those of the training data"
    )
    class_agnostic: bool = Field(
        False, description="learn and look for all classes as one, object: where things are, and not which"
    )
    ignore_flags: tuple[IgnorableFlag, ...] = Field(
        (),
        description="objects with one of these flags of OpenImages or Pascal VOC are ignored: neither learned nor "
        "background, and neither asked for nor counted as wrong in an evaluation",
    )
    value_range: tuple[Sample, Sample] | Literal["auto"] = Field(
        "auto",
        description="16-bit samples that become 0 and 255; auto: all values of as many bits as some of the files use, "
        "kept with the run",
    )
    bands: tuple[Band, Band, Band] | None = Field(
        None,
        description="bands of TIFF and JPEG 2000 files that are red, green, blue, from 1; none: the first three",
    )

    @field_validator("value_range")
    @classmethod
    def _rises(cls, value: Any) -> Any:
        if value != "auto" and value[0] >= value[1]:
            raise ValueError(f"value_range rises, for example [0, 4095], not {list(value)}")
        return value

    @property
    def sample_map(self) -> SampleMap:
        """How samples become 8-bit colours; the high byte of 16 bits while the range is not known."""
        return SampleMap(FULL_RANGE if self.value_range == "auto" else self.value_range, self.bands)


class SamplerConfig(Config):
    """What training is fed. ``tiles`` and ``whole`` are the usual alternatives, for honest comparisons."""

    method: Literal["chips", "tiles", "whole"] = Field(
        "chips", description="object-driven chips; uniform tiles of every level; whole images at every level"
    )
    scale_jitter: float = Field(
        1.0,
        ge=1,
        le=4,
        description="each image's scale at a level is multiplied, every epoch anew, by a factor from 1 / this to this",
    )
    expand_classes: bool = Field(
        False,
        description="in each chip an object teaches its class or one above it in the dataset's class tree, drawn anew",
    )
    repeat_below: float | None = Field(
        None,
        gt=0,
        le=1,
        description="chips of images with a class that is in less than this share t of the images come again in the "
        "epoch: sqrt(t / share) times on average, by the rarest class of each (0.001 for LVIS); null: never",
    )
    tile_overlap: float = Field(0.2, ge=0, lt=1, description="tiles: share that neighbours have in common")
    tile_min_visible: float = Field(
        0.5, gt=0, le=1, description="tiles: an object counts in a tile that shows at least this share of it"
    )


# What a detector takes for objects with both of its stages is wrong seldom, and worth a chip each time.
_DEFAULTS_OF_SELF: dict[str, Any] = {
    "min_proposals": 1,
    "min_proposals_finest": 1,
    "sampling": "score",
    "max_per_positive": 0.5,
}
_EXTRACTION_OF_SELF: dict[str, Any] = {"boxes": "detections", "min_score": 0.1, "nms_iou": 0.5}


class NegativesConfig(NegativeConfig):
    """Negative chips: from which proposals, and by which rule.

    ``proposals: self`` has defaults of its own: finished detections with a score of 0.1 and more, NMS at IoU 0.5
    (``extraction``), each enough for a chip (``min_proposals``, ``min_proposals_finest``), drawn by score, half as
    many negative chips as positive ones at most.
    """

    proposals: str | None = Field(
        None,
        description="auto: train the proposal stage briefly and extract; self: ask the detector itself every "
        "refresh_epochs while it trains; or a file, from sniper propose or COCO results JSON; none: no negative chips",
    )
    proposal_epochs: float = Field(2.0, gt=0, description="auto: epochs that the proposal stage is trained for")
    extraction: ProposeConfig = Field(default_factory=ProposeConfig)
    refresh_epochs: int | None = Field(
        None,
        ge=1,
        description="extract again from the model in training every so many epochs; null: never, or with self after "
        "two thirds of the training",
    )

    @model_validator(mode="before")
    @classmethod
    def _of_self(cls, given: Any) -> Any:
        if not isinstance(given, dict) or given.get("proposals") != "self":
            return given
        extraction = given.get("extraction", {})
        if isinstance(extraction, dict):
            extraction = _EXTRACTION_OF_SELF | extraction
        return _DEFAULTS_OF_SELF | given | {"extraction": extraction}


class Recipe(Config):
    """One run, whole."""

    description: str = Field("", description="what this recipe is for, how long it takes on what, and its score")
    data: DataConfig = DataConfig()
    pyramid: PyramidConfig = PyramidConfig()
    chips: ChipConfig = ChipConfig()
    negatives: NegativesConfig = NegativesConfig()
    sampler: SamplerConfig = SamplerConfig()
    loader: LoaderConfig = LoaderConfig()
    augment: AugmentConfig = AugmentConfig()
    model: ModelConfig = Field(
        SniperConfig(), description="the detector: kind sniper (may be left out), original, rfcn3k, ssh or custom"
    )
    weights: str | None = Field(
        None, description="checkpoint or run folder to start training from, in place of model.weights"
    )
    train: TrainConfig = TrainConfig()
    inference: InferenceConfig = InferenceConfig()
    evaluation: CocoEvalConfig = CocoEvalConfig()

    @model_validator(mode="after")
    def _best_of_protocols(self) -> Self:
        """Where COCO does not measure, the first protocol's number chooses the best weights, unless one is named."""
        names = self.evaluation.protocols
        if "coco" not in names and "best_metric" not in self.train.model_fields_set:
            train = self.train.model_copy(update={"best_metric": BEST_NUMBERS[names[0]]})
            object.__setattr__(self, "train", train)
        return self

    @classmethod
    def load(cls, source: str | Path, overrides: Iterable[str] = ()) -> Self:
        """A recipe from a YAML file or from the name of a shipped one, with ``a.b=c`` settings on top.

        Settings may have the names of the version before; one warning then names the present ones.

        Raises:
            RecipeError: no such recipe, not YAML, an unknown key (the nearest is named) or a wrong value.
        """
        place, overrides = str(source), list(overrides)
        given = _present(_read_yaml(source), place)
        renames = [set_by_any_name(given.settings, override) for override in overrides]
        whole = _present(given.settings, place)  # a value that was set may itself hold settings
        _set_by_hand(whole.settings, [override.partition("=")[0].strip() for override in overrides])
        _warn([*given.changes, *filter(None, renames), *whole.changes], place)
        return cls._validated(whole.settings, place)

    def changed(self, overrides: Iterable[str]) -> Self:
        """This recipe with ``a.b=c`` settings on top, as ``load`` applies them; itself where there are none.

        Raises:
            RecipeError: an unknown key or a wrong value.
        """
        settings, place, overrides = self.model_dump(mode="json"), "recipe", list(overrides)
        if not overrides:
            return self
        renames = [set_by_any_name(settings, override) for override in overrides]
        _set_by_hand(settings, [override.partition("=")[0].strip() for override in overrides])
        _warn([*filter(None, renames)], place)
        return self._validated(settings, place)

    @classmethod
    def parse(cls, settings: Mapping[str, Any], place: str = "recipe") -> Self:
        """A recipe from plain values, also of the version before; ``place`` names their origin in errors."""
        given = _present(settings, place)
        if given.changes:
            logger.debug("%s: %s", place, "; ".join(map(str, given.changes)))
        return cls._validated(given.settings, place)

    @classmethod
    def _validated(cls, settings: Mapping[str, Any], place: str) -> Self:
        try:
            return cls.model_validate(settings)
        except ValidationError as error:
            raise RecipeError(f"{place}: {sentence(cls, settings, error)}") from error

    def to_yaml(self) -> str:
        """The whole recipe as YAML, every setting written out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    def save(self, path: Path | str) -> None:
        """Write the whole recipe as YAML."""
        write_text(path, self.to_yaml())


def shipped_recipes() -> dict[str, Path]:
    """Recipes inside the package by name (``mobilenetv2``, ...)."""
    folder = Path(__file__).parent / "recipes"
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
        settings = read_yaml(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise RecipeError(f"cannot read {path}: {error.strerror or error}; give a YAML file") from error
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


def _present(settings: Mapping[str, Any], place: str) -> Renamed:
    """The settings under their present names; ``place`` names their origin in errors."""
    try:
        return with_present_names(settings)
    except RecipeError as error:
        raise RecipeError(f"{place}: {error}") from error


def _warn(renames: list[Rename], place: str) -> None:
    if renames:
        told = "; ".join(dict.fromkeys(map(str, renames)))
        logger.warning("%s: %s. The former names are read by this version for the last time", place, told)


_LENGTHS = ("epochs", "steps", "minutes")


def _set_by_hand(settings: dict[str, Any], changed: list[str]) -> None:
    """A length of training takes the place of the recipe's own; a learning rate is for the batch that there is."""
    train = settings.get("train")
    if not isinstance(train, dict):
        return
    if any(f"train.{length}" in changed for length in _LENGTHS):
        for length in _LENGTHS:
            if f"train.{length}" not in changed:
                train.pop(length, None)
    if "train.learning_rate" in changed and "train.rate_batch" not in changed:
        train["rate_batch"] = None
