"""Settings of what the detectors with two stages share; without torch."""

from typing import Literal, Self

from pydantic import Field, model_validator

from sniper.nn.config import AnchorConfig, AnchorMatchConfig, Dilation, FocusConfig, Norm, ProposalConfig, RoiConfig
from sniper.settings import Config


class TwoStageConfig(Config):
    """Backbone, proposal network, choice of regions and focus branch. The defaults suit a CPU."""

    kind: str
    backbone: str = Field(default="torchvision/mobilenet_v2", description="torchvision/<model>, or a timm model")
    weights: str | None = Field(
        default="imagenet", description="imagenet (downloaded), a .pth or .safetensors file, or null: random"
    )
    stride: Literal[8, 16, 32] = Field(default=16, description="network px per cell of the feature map")
    feature_levels: int = Field(default=2, ge=1, description="backbone stages whose maps are used")
    channels: int | None = Field(
        default=128,
        ge=1,
        description="features the maps are projected to and added up; null: concatenate (the original)",
    )
    dilation: Dilation = Field(
        default="upsample",
        description="stages beyond the stride: dilate (the original), upsample (from their own stride: cheaper), stop",
    )
    frozen_stages: int | None = Field(
        default=None, ge=0, description="leading stages that keep their weights; null: 2, or 0 without weights"
    )
    norm: Norm = Field(default="train", description="batch norm: train, or frozen statistics and affine")
    mean: tuple[float, float, float] = Field(
        default=(0.485, 0.456, 0.406), description="subtracted from RGB pixels in [0, 1]"
    )
    std: tuple[float, float, float] = Field(default=(0.229, 0.224, 0.225), description="divides RGB pixels after that")
    anchors: AnchorConfig = Field(default_factory=AnchorConfig)
    anchor_match: AnchorMatchConfig = Field(default_factory=AnchorMatchConfig)
    proposals: ProposalConfig = Field(default_factory=ProposalConfig)
    rois: RoiConfig = Field(default_factory=RoiConfig)
    rpn_input: Literal["all", "first"] = Field(
        default="all", description="maps the proposal network sees: all, or the finest stage alone"
    )
    rpn_channels: int = Field(default=128, ge=1, description="filters of the proposal network's 3x3 convolution")
    rpn_box_weight: float = Field(default=3.0, gt=0, description="weight of the proposal network's box loss")
    focus: bool = Field(
        default=False, description="with AutoFocus's branch, which predicts where finer levels must run"
    )
    focus_channels: int = Field(default=64, ge=1, description="features of the focus branch")
    focus_labels: FocusConfig = Field(default=FocusConfig(), description="what the focus branch learns")
    score_threshold: float = Field(
        default=0.01, ge=0, lt=1, description="detections with a lower class probability are dropped"
    )
    max_detections: int = Field(default=300, ge=1, description="at most so many detections per padded input")

    @property
    def network(self) -> str:
        """Name of the network that is trained."""
        return self.backbone

    @property
    def leading_frozen(self) -> int:
        """Frozen stages, with the default resolved."""
        return self.frozen_stages if self.frozen_stages is not None else (2 if self.weights else 0)

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if self.weights is None and self.frozen_stages:
            raise ValueError(f"frozen_stages: {self.frozen_stages} would freeze random weights; give weights, or 0")
        if self.rpn_input == "first" and self.channels is not None:
            raise ValueError("rpn_input: first needs concatenated maps; set channels to null")
        if min(self.std) <= 0:
            raise ValueError(f"std: every value must be positive, not {self.std}")
        return self
