"""Settings of the R-FCN-3K detector; without torch."""

from typing import Literal, Self

from pydantic import Field, model_validator

from sniper.detectors.two_stage_config import TwoStageConfig


class Rfcn3kConfig(TwoStageConfig):
    """R-FCN-3000 (arXiv 1712.01802): what an object is like is told apart from which one of thousands it is."""

    kind: Literal["rfcn3k"] = Field(default="rfcn3k", description="the R-FCN-3K detector")
    super_classes: int = Field(
        default=1, ge=1, description="groups of classes that share one detector; 1: objectness alone"
    )
    clusters: str | None = Field(
        default=None,
        description="file with the group of each class, a line each: a number from 0, a tab, the name; needed with "
        "more than one group",
    )
    head_channels: int = Field(
        default=256, ge=1, description="features left by the 1x1 convolution; a class is a row of so many weights"
    )
    cells: int = Field(default=7, ge=1, description="position-sensitive cells of a region, along each side")
    fine_weight: float = Field(
        default=1.5, gt=0, description="weight of the fine classes' loss; the original divides by 200, not 300, regions"
    )
    object_threshold: float = Field(
        default=0.01, ge=0, lt=1, description="regions that are less likely an object of any class are dropped"
    )
    score_threshold: float = Field(
        default=0.001, ge=0, lt=1, description="detections with a lower product of both probabilities are dropped"
    )

    @model_validator(mode="after")
    def _has_clusters(self) -> Self:
        if self.super_classes > 1 and self.clusters is None:
            raise ValueError(
                f"super_classes: {self.super_classes} needs clusters, a file with the group of each class: lines of a "
                "number from 0, a tab and the name"
            )
        return self
