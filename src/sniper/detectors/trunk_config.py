"""Settings of what detectors on a classifier's features share; without torch."""

from typing import Self

from pydantic import Field, model_validator

from sniper.nn.config import FocusConfig, Norm
from sniper.settings import Config


class TrunkConfig(Config):
    """The trunk, its weights and pixels, and the focus branch on it."""

    kind: str
    backbone: str = Field(description="torchvision/<model>, or a timm model")
    weights: str | None = Field(
        default="imagenet", description="imagenet (downloaded), a .pth, .tar or .safetensors file, or null: random"
    )
    frozen_stages: int | None = Field(
        default=None, ge=0, description="leading stages that keep their weights; null: 2, or 0 without weights"
    )
    norm: Norm = Field(default="train", description="backbone's batch norm: train, or frozen statistics and affine")
    mean: tuple[float, float, float] = Field(
        default=(0.485, 0.456, 0.406), description="subtracted from RGB pixels in [0, 1]"
    )
    std: tuple[float, float, float] = Field(default=(0.229, 0.224, 0.225), description="divides RGB pixels after that")
    focus: bool = Field(
        default=False, description="with AutoFocus's branch, which predicts where finer levels must run"
    )
    focus_channels: int = Field(default=64, ge=1, description="features of the focus branch")
    focus_labels: FocusConfig = Field(default=FocusConfig(), description="what the focus branch learns")
    score_threshold: float = Field(
        default=0.01, ge=0, lt=1, description="detections with a lower class probability are dropped"
    )

    @property
    def leading_frozen(self) -> int:
        """Frozen stages, with the default resolved."""
        return self.frozen_stages if self.frozen_stages is not None else (2 if self.weights else 0)

    @model_validator(mode="after")
    def _trunk_is_sensible(self) -> Self:
        if self.weights is None and self.frozen_stages:
            raise ValueError(f"frozen_stages: {self.frozen_stages} would freeze random weights; give weights, or 0")
        if min(self.std) <= 0:
            raise ValueError(f"std: every value must be positive, not {self.std}")
        return self
