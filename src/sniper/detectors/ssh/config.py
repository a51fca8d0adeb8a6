"""Settings of the SSH face detector; without torch."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from sniper.detectors.trunk_config import TrunkConfig
from sniper.nn.config import AnchorMatchConfig
from sniper.settings import Config

STRIDES = (8, 16, 32)  # network px per cell of the maps that the three modules see
FOCUS_STRIDE = 16

Sides = Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)]


class HardExamplesConfig(Config):
    """Which anchors train, in each module by itself: the ones that it gets most wrong (OHEM)."""

    negatives_per_positive: float = Field(
        default=3.0, gt=0, description="background anchors for each anchor with an object, over the batch"
    )
    min_negatives: int = Field(
        default=64,
        ge=1,
        description="but at least so many a chip: modules that few objects belong to would take background for them",
    )
    max_positives: int = Field(default=64, ge=1, description="at most so many anchors with an object a chip")


class SshConfig(TrunkConfig):
    """A face detector in one stage (arXiv 1708.03979). The defaults are the paper's; any classes can be learned."""

    kind: Literal["ssh"] = Field(default="ssh", description="the SSH face detector, in one stage")
    backbone: str = Field(
        default="torchvision/vgg16",
        description="torchvision/<model>, a timm model, or sniper/mobilenet_v1_x0.25; with maps of strides 8, 16, 32",
    )
    channels: tuple[int, int, int] = Field(
        default=(128, 256, 256),
        description="features of the 3x3 branch of each module, finest first; its two context branches have half each",
    )
    fused_channels: int = Field(
        default=128, ge=1, description="features that the maps of strides 8 and 16 are projected to and added up"
    )
    module_norm: bool = Field(
        default=False, description="batch norm behind the convolutions of the modules; the paper has none"
    )
    anchors_px: tuple[Sides, Sides, Sides] = Field(
        default=((16, 32), (64, 128), (256, 512)),
        description="sides of the square anchors of each module, finest first, network px",
    )
    anchor_match: AnchorMatchConfig = Field(
        default=AnchorMatchConfig(positive_iou=0.5, negative_iou=0.3, border_px=512),
        description="labels of the anchors; samples and positive_share are hard_examples' affair here",
    )
    hard_examples: HardExamplesConfig = Field(
        default=HardExamplesConfig(), description="which anchors train, in each module by itself"
    )
    background_logits: tuple[int, int, int] = Field(
        default=(1, 1, 1),
        description="background logits of an anchor of each module, of which the largest counts (max-out background, "
        "arXiv 1708.05237: 3 where anchors are smallest); SSH itself has one",
    )
    box_weight: float = Field(default=1.0, gt=0, description="weight of the box losses")
    before_nms: int = Field(default=1000, ge=1, description="best boxes of each module that enter suppression")
    nms_iou: float = Field(
        default=0.5, gt=0, le=1, description="IoU above which the weaker of two boxes of a padded input is suppressed"
    )
    max_detections: int = Field(default=1000, ge=1, description="at most so many detections per padded input")

    @property
    def stride(self) -> int:
        """Network px per cell of the middle one of the three maps."""
        return STRIDES[1]

    @property
    def masks(self) -> bool:
        """Whether there is a mask branch: never."""
        return False

    @property
    def network(self) -> str:
        """Name of the network that is trained."""
        return f"SSH, {self.backbone}"

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if any(count < 2 or count % 2 for count in self.channels):
            raise ValueError(f"channels: every number must be even and positive, not {list(self.channels)}")
        if min(self.background_logits) < 1:
            raise ValueError(f"background_logits: every number must be positive, not {list(self.background_logits)}")
        return self
