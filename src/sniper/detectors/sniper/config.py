"""Settings of the reference detector; without torch."""

from typing import Literal

from pydantic import Field

from sniper.detectors.two_stage_config import TwoStageConfig


class SniperConfig(TwoStageConfig):
    """The reference detector. The defaults suit a CPU; a GPU has room for a ResNet and wider heads."""

    kind: Literal["sniper"] = Field(default="sniper", description="the reference detector; may be left out")
    head_channels: int = Field(
        default=96, ge=1, description="features left by the 1x1 convolution before regions are cut out"
    )
    head_width: int = Field(default=256, ge=1, description="units of each fully connected layer")
    masks: bool = Field(default=False, description="with a mask branch; the training data must have masks")
    mask_channels: int = Field(default=96, ge=1, description="features of the mask branch")
    mask_convs: int = Field(default=2, ge=0, description="3x3 convolutions of the mask branch")
    masks_per_chip: int = Field(default=8, ge=1, description="regions with an object that train the mask branch")
