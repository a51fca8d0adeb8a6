"""Settings of the evaluation protocols."""

from typing import Annotated, Literal

from pydantic import Field

from sniper.settings import Config

ProtocolName = Literal["coco", "voc", "openimages"]


class CocoEvalConfig(Config):
    """Which protocols measure, and COCO's settings: with others than its own, numbers do not compare with papers."""

    protocols: Annotated[tuple[ProtocolName, ...], Field(min_length=1)] = Field(
        default=("coco",), description="how detections are measured; train.best_metric names a number of any of them"
    )
    max_detections: int = Field(
        default=100,
        ge=100,
        description="detections per image and class for AP_maxdets, AP50_maxdets and AR_maxdets, which matter where "
        "images hold more than 100 objects; the official numbers always use at most 100",
    )
    class_agnostic: bool = Field(default=False, description="treat all classes as one: where are objects, not which")
    small_px: float = Field(default=32, gt=0, description="objects up to this sqrt(area) are small, original px")
    large_px: float = Field(default=96, gt=0, description="objects from this sqrt(area) on are large, original px")
