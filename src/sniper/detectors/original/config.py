"""The settings of the 2018 detectors, which their losses and their detections read."""

from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from sniper.errors import RecipeError
from sniper.nn.config import AnchorMatchConfig, FocusConfig, ProposalConfig, RoiConfig
from sniper.settings import Config

MOBILENET_STRIDE, RESNET_STRIDE = 32, 16  # network px per cell of the feature map

Network = Literal["sniper_resnet101", "sniper_resnet50", "sniper_mobilenetv2"]


def network_named(name: str) -> Network:
    """The network of that name.

    Raises:
        RecipeError: there is none.
    """
    known = {network: network for network in get_args(Network)}
    if name not in known:
        raise RecipeError(f"--arch {name}: no such network; expected {', '.join(known)}")
    return known[name]


class OriginalProposalConfig(Config):
    """Regions of the first stage in detection."""

    semantics: Literal["sniper", "mxnet"] = Field(
        default="sniper",
        description="sniper: the paper's operator; mxnet: MXNet's own, where anchors over padding and tiny boxes come "
        "last instead of never, min_px is scaled with the image, and missing regions repeat the found ones",
    )
    before_nms: int = Field(default=12_000, ge=1, description="best anchors per image that enter suppression")
    keep: int = Field(default=300, ge=1, description="regions per image")
    nms_iou: float = Field(default=0.7, gt=0, le=1, description="IoU above which the weaker region is suppressed")
    min_px: float = Field(default=3.0, ge=0, description="regions with a shorter side are dropped, network px")


class OriginalConfig(Config):
    """The settings of the 2018 detectors; the defaults are the published ones."""

    kind: Literal["original"] = Field(default="original", description="a detector of the 2018 code")
    network: Network = Field(default="sniper_resnet101", description="which of the original networks")
    focus: bool = Field(default=False, description="with AutoFocus's branch")
    masks: bool = Field(default=False, description="with a mask branch; a ResNet's proposals then come from stage 3")
    mean: tuple[float, float, float] = Field(
        default=(123.68, 116.779, 103.939), description="subtracted from RGB pixels in [0, 255]; nothing divides them"
    )
    anchor_match: AnchorMatchConfig = Field(default_factory=AnchorMatchConfig)
    proposals: OriginalProposalConfig = Field(default_factory=OriginalProposalConfig)
    train_proposals: ProposalConfig = Field(
        default=ProposalConfig(train_before_nms=6000, keep=300, min_px=3),
        description="regions that train the second stage; rule original: only how many, and which suppress each other",
    )
    rois: RoiConfig = Field(
        default=RoiConfig(rule="original"),
        description="labels of these regions; rule original: as the original's operator, number for number",
    )
    box_chips: int | None = Field(
        default=None,
        ge=1,
        description="rule original: chips that the sum of the second stage's box losses is divided by (times 188); "
        "null: those of the batch. The ResNets of 2018 had 16 here whatever the batch",
    )
    focus_cells: FocusConfig = Field(
        default=FocusConfig(overlap="last", loss="mean"), description="what the focus branch learns"
    )
    rpn_box_weight: float = Field(default=3.0, gt=0, description="weight of the proposal network's box loss")
    score_threshold: float = Field(
        default=0.001, ge=0, lt=1, description="detections with a lower class probability are dropped"
    )

    @model_validator(mode="after")
    def _check_rule(self) -> Self:
        if self.rois.rule == "original" and self.rois.soft_sampling != 1:
            raise ValueError("rois.soft_sampling needs rois.rule: ignore; the 2018 rule weighs every region alike")
        return self

    @property
    def stride(self) -> int:
        """Network px per cell of the feature map."""
        return MOBILENET_STRIDE if self.network == "sniper_mobilenetv2" else RESNET_STRIDE
