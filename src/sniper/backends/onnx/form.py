"""What an ONNX file from elsewhere takes and gives, in a YAML file beside it; without torch and numba."""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator

from sniper.errors import RecipeError
from sniper.settings import Config, read_yaml, sentence

Colour = tuple[float, float, float]
Side = Annotated[int, Field(ge=1)]


class InputForm(Config):
    """How pixels become the input."""

    size: tuple[Side, Side] | None = Field(
        None, description="rows and columns, px; null: those that the file says, or any where it leaves them open"
    )
    step_px: int = Field(32, ge=1, description="where the size is open, its sides are multiples of this, px")
    layout: Literal["nchw", "nhwc"] = Field("nchw", description="order of batch, channels, rows and columns")
    colour: Literal["rgb", "bgr"] = Field("rgb", description="order of the channels")
    scale: float = Field(1 / 255, gt=0, description="pixels from 0 to 255 are multiplied by this")
    mean: Colour = Field((0.0, 0.0, 0.0), description="subtracted after that, in the order of the channels")
    std: Colour = Field((1.0, 1.0, 1.0), description="divides after that, in the order of the channels")
    fit: Literal["pad", "stretch"] = Field(
        "pad", description="how a smaller image fills a fixed size: pad, or stretch it, whatever its shape"
    )
    padding: int = Field(0, ge=0, le=255, description="value of pixels beyond the image, before scale")

    @field_validator("std")
    @classmethod
    def _positive(cls, value: Colour) -> Colour:
        if min(value) <= 0:
            raise ValueError(f"std: every value must be positive, not {list(value)}")
        return value


class YoloForm(Config):
    """One output (B, N, 4 + C) or (B, 4 + C, N): centre, size and class scores of each box; YOLO of all versions."""

    kind: Literal["yolo"]
    objectness: bool = Field(False, description="with an objectness after the box, which multiplies the class scores")
    logits: bool = Field(False, description="scores are logits still")
    strides: tuple[Side, ...] | None = Field(
        None,
        description="boxes are relative to cells of grids of these strides, finest first, sizes logarithms (YOLOX)",
    )


class DetrForm(Config):
    """Class logits (B, Q, C or C + 1) and boxes (B, Q, 4), centre and size as shares of the input: DETR and its kin."""

    kind: Literal["detr"]
    activation: Literal["sigmoid", "softmax"] = Field(
        "sigmoid", description="what makes scores of logits; softmax: the last class is no object"
    )


class BoxesForm(Config):
    """Boxes (B, N, 4) xyxy, scores (B, N) and labels (B, N); without B where the file takes one image."""

    kind: Literal["boxes"]
    first_label: int = Field(0, ge=0, le=1, description="label of the first class: 1 after a background class")
    unit: Literal["px", "share"] = Field("px", description="boxes in px of the input, or as shares of it")


class FastestDetForm(Config):
    """One output (B, 5 + C, h, w): objectness, box and class scores of each cell (FastestDet)."""

    kind: Literal["fastestdet"]


class YunetForm(Config):
    """Twelve outputs, class, objectness, box and landmarks of each cell at three strides (YuNet)."""

    kind: Literal["yunet"]
    strides: tuple[Side, ...] = Field((8, 16, 32), description="strides of the grids, px")


OutputForm = Annotated[
    YoloForm | DetrForm | BoxesForm | FastestDetForm | YunetForm,
    Field(discriminator="kind"),
]


class OnnxForm(Config):
    """An ONNX detector from elsewhere."""

    classes: tuple[str, ...] = Field(min_length=1, description="names of the classes, in the order of the output")
    class_ids: tuple[int, ...] | None = Field(None, description="their ids in datasets; null: counted from 1")
    input: InputForm = Field(default_factory=InputForm)
    output: OutputForm = Field(description="form of what comes out, told apart by kind")
    outputs: tuple[str, ...] | None = Field(
        None, description="names of the outputs in the order that kind has; null: the order of the file"
    )
    min_score: float = Field(0.01, ge=0, le=1, description="boxes with a lower score are dropped")
    nms_iou: float | None = Field(
        None, gt=0, le=1, description="IoU above which the weaker box of a class goes, each window; null: none goes"
    )
    max_boxes: int = Field(300, ge=1, description="at most so many boxes of a window, the best")
    pyramid: dict[str, Any] | None = Field(
        None, description="levels and ranges, as in a recipe; null: whole images at the size of the input"
    )
    inference: dict[str, Any] = Field(default_factory=dict, description="windows, merging, AutoFocus, as in a recipe")

    @field_validator("class_ids")
    @classmethod
    def _one_each(cls, value: tuple[int, ...] | None, info: Any) -> tuple[int, ...] | None:
        names = info.data.get("classes", ())
        if value is not None and len(value) != len(names):
            raise ValueError(f"class_ids: expected one for each of {len(names)} classes, got {len(value)}")
        return value


def shipped_forms() -> dict[str, Path]:
    """Forms inside the package by name."""
    return {path.stem: path for path in sorted((Path(__file__).parent / "forms").glob("*.yaml"))}


def form_file(model: Path, named: Path | str | None) -> Path | None:
    """The file of a model's form: what is ``named`` (a file, or a shipped form), else the YAML beside it, if any.

    Raises:
        RecipeError: ``named`` is neither.
    """
    if named is None:
        beside = model.with_suffix(".yaml")
        return beside if beside.is_file() else None
    path, shipped = Path(named).expanduser(), shipped_forms()
    if path.is_file():
        return path
    if str(named) in shipped:
        return shipped[str(named)]
    raise RecipeError(f"no form {named}: expected a YAML file or one of the shipped forms ({', '.join(shipped)})")


def read_form(path: Path) -> OnnxForm:
    """The form in a YAML file.

    Raises:
        RecipeError: it is no YAML, or has an unknown or wrong setting.
    """
    try:
        settings = read_yaml(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise RecipeError(f"cannot read {path}: {error.strerror or error}; give a YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = getattr(error, "problem", None) or "wrong encoding"
        raise RecipeError(f"{path}: not valid YAML ({reason}); correct it") from error
    if not isinstance(settings, dict):
        raise RecipeError(f"{path}: expected settings as 'key: value' at the top, got {type(settings).__name__}")
    try:
        return OnnxForm.model_validate(settings)
    except ValidationError as error:
        raise RecipeError(f"{path}: {sentence(OnnxForm, settings, error)}") from error
