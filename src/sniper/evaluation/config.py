"""Settings of the evaluation protocols."""

from pydantic import Field

from sniper.settings import Config


class CocoEvalConfig(Config):
    """The protocol's settings. The defaults are COCO's own; with others, numbers do not compare with the literature."""

    max_detections: int = Field(
        default=100,
        ge=100,
        description="detections per image and class for AP_maxdets, AP50_maxdets and AR_maxdets, which matter where "
        "images hold more than 100 objects; the official numbers always use at most 100",
    )
    class_agnostic: bool = Field(default=False, description="treat all classes as one: where are objects, not which")
    small_px: float = Field(default=32, gt=0, description="objects up to this sqrt(area) are small, original px")
    large_px: float = Field(default=96, gt=0, description="objects from this sqrt(area) on are large, original px")
