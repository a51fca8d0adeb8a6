"""Detectors of transformers: which are known by name, and what is known of each; without torch and pydantic."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from sniper.errors import CheckpointError, RecipeError

PREFIX = "hf/"
CONFIG_FILE, WEIGHTS_FILE, PROCESSOR_FILE = "config.json", "model.safetensors", "preprocessor_config.json"


class Published(NamedTuple):
    """Weights for COCO that are published under a name."""

    family: str
    recipe: str  # the shipped recipe with settings that suit it, without ``transformers/``
    million_parameters: float
    coco_ap: float  # published for these weights
    licence: str = "Apache-2.0"  # of the weights; COCO's annotations are CC BY 4.0
    sides: tuple[int, int] = (640, 640)  # shorter and longer side of a photo that it was trained at, px


_LARGE = (800, 1333)

PUBLISHED: dict[str, Published] = {
    "PekingU/rtdetr_v2_r18vd": Published("RT-DETRv2", "rtdetr_v2_r18vd", 20.2, 47.9),
    "PekingU/rtdetr_v2_r34vd": Published("RT-DETRv2", "rtdetr_v2_r18vd", 31.4, 49.9),
    "PekingU/rtdetr_v2_r50vd": Published("RT-DETRv2", "rtdetr_v2_r18vd", 42.8, 53.4),
    "PekingU/rtdetr_v2_r101vd": Published("RT-DETRv2", "rtdetr_v2_r18vd", 76.5, 54.3),
    "PekingU/rtdetr_r18vd": Published("RT-DETR", "rtdetr_r18vd", 20.2, 46.5),
    "PekingU/rtdetr_r34vd": Published("RT-DETR", "rtdetr_r18vd", 31.4, 48.9),
    "PekingU/rtdetr_r50vd": Published("RT-DETR", "rtdetr_r18vd", 42.8, 53.1),
    "PekingU/rtdetr_r101vd": Published("RT-DETR", "rtdetr_r18vd", 76.5, 54.3),
    "ustc-community/dfine-nano-coco": Published("D-FINE", "dfine_small", 3.8, 42.8),
    "ustc-community/dfine-small-coco": Published("D-FINE", "dfine_small", 10.3, 48.5),
    "ustc-community/dfine-medium-coco": Published("D-FINE", "dfine_small", 19.6, 52.3),
    "ustc-community/dfine-large-coco": Published("D-FINE", "dfine_small", 31.2, 54.0),
    "ustc-community/dfine-xlarge-coco": Published("D-FINE", "dfine_small", 62.5, 55.8),
    "facebook/detr-resnet-50": Published("DETR", "detr_resnet50", 41.6, 42.0, sides=_LARGE),
    "facebook/detr-resnet-101": Published("DETR", "detr_resnet50", 60.6, 43.5, sides=_LARGE),
    "microsoft/conditional-detr-resnet-50": Published(
        "Conditional DETR", "conditional_detr_resnet50", 43.5, 40.9, sides=_LARGE
    ),
    "IDEA-Research/dab-detr-resnet-50": Published("DAB-DETR", "dab_detr_resnet50", 43.7, 42.2, sides=_LARGE),
    "SenseTime/deformable-detr": Published("Deformable DETR", "deformable_detr", 40.2, 44.5, sides=_LARGE),
    "AnnaZhang/lwdetr_tiny_60e_coco": Published("LW-DETR", "lw_detr", 12.1, 42.6),
    "AnnaZhang/lwdetr_small_60e_coco": Published("LW-DETR", "lw_detr", 14.6, 48.0),
    "AnnaZhang/lwdetr_medium_60e_coco": Published("LW-DETR", "lw_detr", 28.2, 52.5),
    "Roboflow/rf-detr-nano": Published("RF-DETR", "rf_detr", 30.5, 48.4, sides=(384, 384)),
    "Roboflow/rf-detr-small": Published("RF-DETR", "rf_detr", 32.1, 53.0, sides=(512, 512)),
    "Roboflow/rf-detr-medium": Published("RF-DETR", "rf_detr", 33.7, 54.7, sides=(576, 576)),
    "Roboflow/rf-detr-base": Published("RF-DETR", "rf_detr", 29.0, 53.3, sides=(560, 560)),
    "hustvl/yolos-tiny": Published("YOLOS", "yolos_tiny", 6.5, 28.7, sides=(512, 1333)),
    "hustvl/yolos-small": Published("YOLOS", "yolos_tiny", 30.7, 36.1, sides=_LARGE),
}
# The recipe for a model by its type in the library, where only that is known.
RECIPES: dict[str, str] = {
    "rt_detr": "rtdetr_r18vd",
    "rt_detr_v2": "rtdetr_v2_r18vd",
    "d_fine": "dfine_small",
    "deimv2": "dfine_small",
    "detr": "detr_resnet50",
    "table-transformer": "detr_resnet50",
    "conditional_detr": "conditional_detr_resnet50",
    "dab-detr": "dab_detr_resnet50",
    "deformable_detr": "deformable_detr",
    "yolos": "yolos_tiny",
    "lw_detr": "lw_detr",
    "rf_detr": "rf_detr",
}


def model_name(place: Path | str) -> str | None:
    """The model that ``hf/OWNER/NAME``, ``hf/FOLDER`` or a folder of the library's form means; None: it is neither."""
    if is_model_folder(place):
        return str(place)
    words = place.as_posix() if isinstance(place, Path) else place
    name = words.removeprefix(PREFIX)
    if name == words or Path(place).exists():
        return None
    if not is_model_folder(name) and len(name.split("/")) != 2:
        raise RecipeError(f"{words}: expected {PREFIX}OWNER/NAME, or a folder with {CONFIG_FILE} and {WEIGHTS_FILE}")
    return name


def required_files(name: str) -> tuple[str, ...]:
    """The files to download for a name of weights: those of a model for ``hf/OWNER/NAME``, else the one of the name."""
    model = name.removeprefix(PREFIX)
    return (name,) if model == name else tuple(f"hf:{model}/{file}" for file in (CONFIG_FILE, WEIGHTS_FILE))


def optional_file(name: str) -> str:
    """The file that says how a model's colours are normalised; not every model has one."""
    return f"hf:{name.removeprefix(PREFIX)}/{PROCESSOR_FILE}"


def is_model_folder(place: Path | str) -> bool:
    """Whether the library has saved a model there."""
    file = Path(place) / CONFIG_FILE
    return file.is_file() and "model_type" in read_config(file)


def read_config(file: Path) -> dict[str, Any]:
    """A configuration of the library, as it is written.

    Raises:
        CheckpointError: it cannot be read, or is none.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {file}: {error}; give the {CONFIG_FILE} of a model") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{file}: expected settings as an object, got {type(found).__name__}")
    return found
