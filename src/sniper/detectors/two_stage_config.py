"""Settings of what the detectors with two stages share; without torch."""

from typing import Literal, Self

from pydantic import Field, model_validator

from sniper.detectors.trunk_config import TrunkConfig
from sniper.nn.config import AnchorConfig, AnchorMatchConfig, Dilation, ProposalConfig, RoiConfig


class TwoStageConfig(TrunkConfig):
    """Backbone, proposal network, choice of regions and focus branch. The defaults suit a CPU."""

    backbone: str = Field(default="torchvision/mobilenet_v2", description="torchvision/<model>, or a timm model")
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
    anchors: AnchorConfig = Field(default_factory=AnchorConfig)
    anchor_match: AnchorMatchConfig = Field(default_factory=AnchorMatchConfig)
    proposals: ProposalConfig = Field(default_factory=ProposalConfig)
    rois: RoiConfig = Field(default_factory=RoiConfig)
    rpn_input: Literal["all", "first"] = Field(
        default="all", description="maps the proposal network sees: all, or the finest stage alone"
    )
    rpn_channels: int = Field(default=128, ge=1, description="filters of the proposal network's 3x3 convolution")
    rpn_box_weight: float = Field(default=3.0, gt=0, description="weight of the proposal network's box loss")
    max_detections: int = Field(default=300, ge=1, description="at most so many detections per padded input")

    @property
    def network(self) -> str:
        """Name of the network that is trained."""
        return self.backbone

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if self.rpn_input == "first" and self.channels is not None:
            raise ValueError("rpn_input: first needs concatenated maps; set channels to null")
        return self
