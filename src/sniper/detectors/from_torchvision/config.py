"""Settings of torchvision's detectors; without torch."""

from typing import Literal, Self

from pydantic import Field, model_validator

from sniper.detectors.from_torchvision.builders import BUILDERS, LIBRARY, Builder, Name
from sniper.nn.config import FocusConfig, Norm
from sniper.settings import Config

_CLASSES = {
    "Faster R-CNN": "TorchvisionRCNN",
    "Mask R-CNN": "TorchvisionRCNN",
    "RetinaNet": "TorchvisionRetinaNet",
    "FCOS": "TorchvisionFCOS",
    "SSD": "TorchvisionSSD",
    "SSDlite": "TorchvisionSSD",
}


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
