"""Settings of chips: where they are placed, and which negative ones there are; without numba."""

from typing import Literal, NamedTuple, Self

from pydantic import Field, PositiveInt, model_validator

from sniper.errors import RecipeError
from sniper.settings import Config


class SizeRule(NamedTuple):
    """Which objects are valid by size, the same in every epoch."""

    min_side_px: float  # original px
    stride_max: int  # network px, the largest stride that an epoch may draw


_REFERENCE_STRIDES = (56 / 512, 59 / 512)  # of the chip's side; the spacing that SNIPER was published with


class ChipConfig(Config):
    """How chips are placed."""

    stride_px: Literal["auto"] | tuple[PositiveInt, PositiveInt] = Field(
        "auto",
        description="least and largest spacing of candidate chips, network px, one drawn per epoch; "
        "auto: 11 % of the chip's side (56 to 59 for 512)",
    )
    min_side_px: float = Field(2.0, ge=0, description="objects with a shorter side are never valid, original px")
    background_per_image: int = Field(1, ge=0, description="random chips per epoch of an image without objects")
    background_share: float = Field(
        0.0, ge=0, description="random chips anywhere per epoch, as a share of the number of positive chips"
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.stride_px != "auto" and self.stride_px[0] > self.stride_px[1]:
            raise ValueError(
                f"stride_px: the least {self.stride_px[0]} must not exceed the largest {self.stride_px[1]}"
            )
        return self

    def strides_px(self, chip_px: int) -> tuple[int, int]:
        """Least and largest stride for chips of ``chip_px``, network px.

        Raises:
            RecipeError: the largest stride is not below the side of a chip.
        """
        if self.stride_px == "auto":
            return round(_REFERENCE_STRIDES[0] * chip_px), round(_REFERENCE_STRIDES[1] * chip_px)
        if self.stride_px[1] >= chip_px:
            raise RecipeError(
                f"chips.stride_px: candidates {self.stride_px[1]} px apart leave gaps between chips of {chip_px} px; "
                f"choose at most {chip_px - 1}, or 'auto'"
            )
        return self.stride_px

    def size_rule(self, chip_px: int) -> SizeRule:
        """What ``positive.valid_objects`` needs to know for chips of ``chip_px``."""
        return SizeRule(self.min_side_px, self.strides_px(chip_px)[1])


class NegativeConfig(Config):
    """Which proposals make negative chips, and how many chips an image gives."""

    per_image: int = Field(2, ge=0, description="at most so many negative chips of an image in an epoch")
    per_positive: float = Field(
        0.0, ge=0, description="and so many more for each of its positive chips: one huge image is as good as many"
    )
    max_per_positive: float | None = Field(
        None,
        ge=0,
        description="at most so many negative chips of all images in an epoch for each positive one, so that photos "
        "without objects do not crowd out the others; drawn as sampling says; null: no such limit",
    )
    min_proposals_finest: int = Field(
        26, ge=1, description="proposals that a chip of the finest level must hold to count"
    )
    min_proposals: int = Field(11, ge=1, description="the same at every other level")
    covered: Literal["contained", "overlap"] = Field(
        "contained",
        description="a proposal needs no negative chip if a positive chip of its level shows covered_share of it "
        "(contained), or if the chip that shows most of it shows a pixel (overlap: the original)",
    )
    covered_share: float = Field(0.5, gt=0, le=1, description="contained: share of the proposal's area")
    sampling: Literal["uniform", "score"] = Field(
        "uniform", description="how an image's chips are drawn: alike, or by the sum of their proposals' scores"
    )
    empty_images: bool = Field(True, description="images without any object give negative chips too")
    min_score: float = Field(0.0, ge=0, le=1, description="proposals with a lower score are left out")
    max_proposals: int | None = Field(None, ge=1, description="best proposals of an image that count; null: all")
    found_iou: float | None = Field(
        0.5,
        gt=0,
        le=1,
        description="a proposal with this IoU with an object, or half in a crowd region, is no false positive; "
        "null: all count, as in the original",
    )
