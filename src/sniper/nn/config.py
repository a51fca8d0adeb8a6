"""Settings of the parts that several detectors are made of; without torch."""

from typing import Literal

from pydantic import Field

from sniper.pyramid import FOCUS_PX
from sniper.settings import Config

Norm = Literal["train", "frozen"]


Dilation = Literal["dilate", "upsample", "stop"]


Rounding = Literal["exact", "half_even", "half_up"]


class AnchorConfig(Config):
    """Sizes and shapes of the anchors of one cell."""

    scales: tuple[float, ...] = Field(
        default=(1, 2, 3.5, 6, 10, 17),
        min_length=1,
        description="sides of the square anchors, in strides (16 px: 16 to 272 px)",
    )
    ratios: tuple[float, ...] = Field(default=(0.5, 1, 2), min_length=1, description="height over width")
    rounding: Rounding = Field(
        default="exact",
        description="sides of the scale-1 anchors in whole px: half_even and half_up are those of the 2018 code",
    )


class AnchorMatchConfig(Config):
    """Thresholds of the anchor labels, and how many anchors train."""

    positive_iou: float = Field(
        default=0.5, ge=0, le=1, description="IoU with a valid object from which an anchor is positive"
    )
    negative_iou: float = Field(
        default=0.4, ge=0, le=1, description="IoU with every valid object below which it is background"
    )
    ignore_iou: float = Field(
        default=0.3, ge=0, le=1, description="IoU with an ignored object above which it is neither"
    )
    crowd_share: float = Field(
        default=0.5, ge=0, le=1, description="visible share inside a crowd region above which it is neither"
    )
    border_px: float = Field(
        default=32, ge=0, description="anchors that leave the padded input by more are not trained, network px"
    )
    samples: int = Field(default=256, ge=2, description="anchors that train per chip")
    positive_share: float = Field(default=0.5, gt=0, lt=1, description="at most this share of them is positive")


class ProposalConfig(Config):
    """How many regions pass from the first stage to the second."""

    train_before_nms: int = Field(
        default=1000, ge=1, description="best anchors per chip that enter suppression in training"
    )
    test_before_nms: int = Field(default=1000, ge=1, description="the same when detecting")
    keep: int = Field(default=300, ge=1, description="regions per padded input after suppression")
    nms_iou: float = Field(default=0.7, gt=0, le=1, description="IoU above which the weaker region is suppressed")
    min_px: float = Field(default=2.0, ge=0, description="regions with a shorter side are dropped, network px")
    test_min_score: float = Field(
        default=0.05,
        ge=0,
        lt=1,
        description="less probable regions do not enter the second stage when detecting: on empty ground and in small "
        "windows it costs as much as all convolutions, and they hold nothing",
    )


class RoiConfig(Config):
    """Labels and choice of the regions that train the second stage."""

    rule: Literal["ignore", "original"] = Field(
        default="ignore",
        description="ignore: regions on ignored objects do not train; original: all train, ignored objects count too",
    )
    positive_iou: float = Field(
        default=0.5, ge=0, le=1, description="IoU with an object above which a region takes its class"
    )
    ignore_iou: float = Field(
        default=0.3, ge=0, le=1, description="IoU above which a region that best matches an ignored object is left out"
    )
    crowd_share: float = Field(
        default=0.5, ge=0, le=1, description="share inside a crowd region above which a region is not background"
    )
    per_chip: int = Field(default=128, ge=2, description="regions that train per chip (rule ignore)")
    positive_share: float = Field(
        default=0.25, gt=0, lt=1, description="at most this share of them holds an object (rule ignore)"
    )
    soft_sampling: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="weight of background far from all labelled objects, which rises to 1 near them (soft sampling): "
        "0.25 where many objects have no label; 1: off",
    )


class FocusConfig(Config):
    """Which objects deserve a closer look, by their size on the padded input: the same at every level of the
    pyramid.
    """

    min_px: float = Field(
        default=FOCUS_PX[0], ge=0, description="objects up to this size are neither, sqrt(area) in network px"
    )
    small_px: float = Field(
        default=FOCUS_PX[1], gt=0, description="objects below this size deserve a finer level, network px"
    )
    large_px: float = Field(
        default=90.0, gt=0, description="objects from small_px to below this are neither, larger ones not, network px"
    )
    overlap: Literal["small", "last"] = Field(
        default="small", description="a cell of several objects: small ones first, or the last object (the original)"
    )
    loss: Literal["balanced", "mean"] = Field(
        default="balanced", description="cells with and without focus count alike, or every cell does (the original)"
    )
