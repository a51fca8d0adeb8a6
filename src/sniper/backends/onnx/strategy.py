"""What a file that ``sniper export`` wrote says about itself, so that the way it is run travels with it."""

from typing import Any, Literal

from pydantic import Field

from sniper.settings import Config

KEY = "sniper"  # of the entry in the file's metadata, which holds this as JSON


class Strategy(Config):
    """Names, sizes and settings of an exported detector."""

    format: Literal[1] = Field(1, description="version of this document")
    sniper: str = Field(description="version of sniper that wrote it")
    detector: str = Field(description="class of the detector")
    class_names: tuple[str, ...] = Field(description="name of each label")
    class_ids: tuple[int, ...] = Field(description="dataset id of each label")
    input: Literal["uint8 NHWC RGB"] = Field(
        "uint8 NHWC RGB", description="images (B, H, W, 3) from 0 to 255; mean and deviation are in the graph"
    )
    step_px: int = Field(64, description="H and W are multiples of this")
    side_px: int | None = Field(None, description="H and W are this alone, windows are padded to it; null: any")
    stride: int | None = Field(None, description="network px per cell of its feature map")
    comfortable_px: float = Field(64.0, description="object size that it sees best, sqrt(area) in network px")
    focus_stride: int | None = Field(None, description="network px per cell of the focus map; null: it has none")
    proposes: bool = Field(True, description="whether the file gives proposals, too")
    half: bool = Field(False, description="features are computed in half precision")
    nms_iou: float | None = Field(None, description="IoU of the suppression inside the graph; null: there is none")
    draw_scores: tuple[float, ...] = Field((), description="score of each label from which on detections are drawn")
    pyramid: dict[str, Any] = Field(description="levels with their ranges, and the side of a chip")
    inference: dict[str, Any] = Field(description="windows, merging and AutoFocus")
    data: dict[str, Any] = Field(description="how samples of 16 bits and bands become colours")
