"""torchvision's detectors: which there are, and what is known of each; without pydantic, for the command line."""

import difflib
from pathlib import Path
from typing import Literal, NamedTuple

from sniper.errors import RecipeError

LIBRARY = "torchvision/"
LICENCE = "BSD-3-Clause"  # of torchvision and its weights; COCO's annotations are CC BY 4.0


Name = Literal[
    "fasterrcnn_resnet50_fpn_v2",
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "maskrcnn_resnet50_fpn_v2",
    "maskrcnn_resnet50_fpn",
    "retinanet_resnet50_fpn_v2",
    "retinanet_resnet50_fpn",
    "fcos_resnet50_fpn",
    "ssd300_vgg16",
    "ssdlite320_mobilenet_v3_large",
]


class Builder(NamedTuple):
    """One of the library's builders."""

    family: str
    recipe: str  # the shipped recipe with settings that suit it, without ``torchvision/``
    million_parameters: float  # with COCO's classes
    coco_ap: float  # published for the library's weights
    focus_stride: int  # network px per cell of the map that a focus branch has
    comfortable_px: float  # object size that it sees best, sqrt(area) in network px
    backbone: str | None  # whose ImageNet weights it takes; None: the library's build with them is another network
    frozen_stages: int  # leading stages of the backbone that the library freezes where it has weights
    frozen_norms: bool  # whether the library freezes the backbone's norms where it has weights
    first_version_norms: bool = False  # the library's weights are for norms without epsilon
    masks: bool = False


def _two_stages(recipe: str, parameters: float, ap: float, *, version: int, masks: bool = False) -> Builder:
    family = "Mask R-CNN" if masks else "Faster R-CNN"
    return Builder(family, recipe, parameters, ap, 16, 64, "resnet50", 2, version == 1, version == 1, masks)


def _two_stages_of_mobilenet(ap: float) -> Builder:
    recipe = "fasterrcnn_mobilenet_v3_large_fpn"
    return Builder("Faster R-CNN", recipe, 19.4, ap, 32, 96, "mobilenet_v3_large", 3, True)


BUILDERS: dict[str, Builder] = {
    "fasterrcnn_resnet50_fpn_v2": _two_stages("fasterrcnn_resnet50_fpn_v2", 43.7, 46.7, version=2),
    "fasterrcnn_resnet50_fpn": _two_stages("fasterrcnn_resnet50_fpn_v2", 41.8, 37.0, version=1),
    "fasterrcnn_mobilenet_v3_large_fpn": _two_stages_of_mobilenet(32.8),
    "fasterrcnn_mobilenet_v3_large_320_fpn": _two_stages_of_mobilenet(22.8),
    "maskrcnn_resnet50_fpn_v2": _two_stages("maskrcnn_resnet50_fpn_v2", 46.4, 47.4, version=2, masks=True),
    "maskrcnn_resnet50_fpn": _two_stages("maskrcnn_resnet50_fpn_v2", 44.4, 37.9, version=1, masks=True),
    "retinanet_resnet50_fpn_v2": Builder(
        "RetinaNet", "retinanet_resnet50_fpn_v2", 38.2, 41.5, 16, 64, "resnet50", 2, False
    ),
    "retinanet_resnet50_fpn": Builder(
        "RetinaNet", "retinanet_resnet50_fpn_v2", 34.0, 36.4, 16, 64, "resnet50", 2, True, True
    ),
    "fcos_resnet50_fpn": Builder("FCOS", "fcos_resnet50_fpn", 32.3, 39.2, 16, 64, "resnet50", 2, True),
    "ssd300_vgg16": Builder("SSD", "ssd300_vgg16", 35.6, 25.1, 16, 64, None, 0, False),
    "ssdlite320_mobilenet_v3_large": Builder(
        "SSDlite", "ssdlite320_mobilenet_v3_large", 3.4, 21.3, 16, 96, None, 0, False
    ),
}


def library_name(place: Path | str) -> str | None:
    """The builder that ``torchvision/<name>`` means; None: it is another path, or a file of that name.

    Raises:
        RecipeError: torchvision has no such detector.
    """
    words = place.as_posix() if isinstance(place, Path) else place
    name = words.removeprefix(LIBRARY)
    if name == words or Path(place).exists():
        return None
    if name not in BUILDERS:
        close = difflib.get_close_matches(name, BUILDERS, n=1)
        hint = f"; did you mean {LIBRARY}{close[0]}?" if close else f"; it has {', '.join(BUILDERS)}"
        raise RecipeError(f"{words}: torchvision has no such detector{hint}")
    return name
