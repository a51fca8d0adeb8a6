"""From when on something in a dataset is suspicious."""

from pydantic import Field

from sniper.settings import Config


class CheckConfig(Config):
    """The limits of ``sniper check``."""

    tiny_px: float = Field(4.0, ge=0, description="boxes with a shorter side are tiny, original px")
    huge_share: float = Field(0.95, gt=0, le=1, description="boxes of at least this share of their image are huge")
    duplicate_iou: float = Field(0.9, gt=0, le=1, description="IoU from which two boxes are one object drawn twice")
    crowded: int = Field(
        300, ge=1, description="images with more objects are crowded; inference keeps 300 detections of an image"
    )
    min_objects: int = Field(10, ge=1, description="classes with fewer objects in a dataset are rare")
    dark_max: int = Field(40, ge=0, le=255, description="images whose brightest value is below are nearly black")
    flat_spread: int = Field(
        8, ge=0, le=255, description="images whose values span less than this, darkest to brightest, show nothing"
    )
    similar_bits: int = Field(
        6, ge=0, le=13, description="images whose perceptual hashes (112 bits) differ in no more may be the same"
    )
    similar_levels: float = Field(
        3.0, ge=0, description="... and are, if their thumbnails differ by no more grey levels, mean of 32 x 32 px"
    )
