"""Settings of torchvision's detectors, and which there are; without torch."""

import difflib
from pathlib import Path
from typing import Literal, NamedTuple, Self

from pydantic import Field, model_validator

from sniper.errors import RecipeError
from sniper.nn.config import FocusConfig, Norm
from sniper.settings import Config

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


_CLASSES = {
    "Faster R-CNN": "TorchvisionRCNN",
    "Mask R-CNN": "TorchvisionRCNN",
    "RetinaNet": "TorchvisionRetinaNet",
    "FCOS": "TorchvisionFCOS",
    "SSD": "TorchvisionSSD",
    "SSDlite": "TorchvisionSSD",
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


class TorchvisionConfig(Config):
    """A detector of torchvision, with its own heads and losses; ignored objects are left out of them."""

    kind: Literal["torchvision"] = Field(default="torchvision", description="a detector of torchvision")
    name: Name = Field(default="retinanet_resnet50_fpn_v2", description="the library's builder")
    weights: str | None = Field(
        default="coco",
        description="coco: the library's own, rows of classes taken over by name; imagenet: of the backbone alone; a "
        ".pth or .safetensors file of the library's form; or null: random",
    )
    norm: Norm | None = Field(
        default=None,
        description="batch norms of the backbone: train, or frozen statistics and affine; null: as the library does",
    )
    frozen_stages: int | None = Field(
        default=None,
        ge=0,
        description="leading stages of the backbone that keep their weights; null: as the library does (ResNet: 2), "
        "or 0 without weights",
    )
    ignore_iou: float = Field(
        default=0.3, ge=0, le=1, description="IoU with an ignored object above which an anchor or region is neither"
    )
    crowd_share: float = Field(
        default=0.5, ge=0, le=1, description="share inside a crowd region above which an anchor or region is neither"
    )
    score_threshold: float = Field(
        default=0.01, ge=0, lt=1, description="detections with a lower class probability are dropped"
    )
    nms_iou: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="IoU above which the weaker of two detections of a class is dropped before levels are merged; "
        "null: the library's",
    )
    candidates: int = Field(
        default=1000, ge=1, description="best boxes per map (SSD: per class) that enter suppression when detecting"
    )
    max_detections: int = Field(default=1000, ge=1, description="at most so many detections per padded input")
    focus: bool = Field(
        default=False, description="with AutoFocus's branch, which predicts where finer levels must run"
    )
    focus_channels: int = Field(default=64, ge=1, description="features of the focus branch")
    focus_labels: FocusConfig = Field(default=FocusConfig(), description="what the focus branch learns")

    @property
    def builder(self) -> Builder:
        """What is known of the builder."""
        return BUILDERS[self.name]

    @property
    def network(self) -> str:
        """Name of the network that is trained."""
        return LIBRARY + self.name

    @property
    def class_name(self) -> str:
        """The class of the detector that is built."""
        return _CLASSES[self.builder.family]

    @property
    def stride(self) -> int:
        """Network px per cell of the map that a focus branch has."""
        return self.builder.focus_stride

    @property
    def masks(self) -> bool:
        """Whether it has a mask branch; the training data must have masks then."""
        return self.builder.masks

    @property
    def leading_frozen(self) -> int:
        """Frozen stages, with the default resolved."""
        if self.frozen_stages is not None:
            return self.frozen_stages
        return self.builder.frozen_stages if self.weights else 0

    @property
    def freezes_norms(self) -> bool:
        """Whether the backbone's batch norms keep their statistics, with the default resolved."""
        if self.norm is not None:
            return self.norm == "frozen"
        return self.builder.frozen_norms and self.weights is not None

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if self.weights is None and self.frozen_stages:
            raise ValueError(f"frozen_stages: {self.frozen_stages} would freeze random weights; give weights, or 0")
        if self.weights == "imagenet" and self.builder.backbone is None:
            raise ValueError(
                f"weights: the library has no ImageNet weights for the backbone of {self.name} as it is built; take "
                "coco, a file or null"
            )
        return self
