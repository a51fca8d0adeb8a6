"""Settings of the evaluation protocols."""

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator

from sniper.settings import Config

ProtocolName = Literal["coco", "voc", "openimages", "wider", "imagenet"]
PROTOCOL_NAMES: tuple[ProtocolName, ...] = get_args(ProtocolName)
BEST_NUMBERS: dict[ProtocolName, str] = {
    "coco": "AP",
    "voc": "VOC_AP50",
    "openimages": "OID_AP50",
    "wider": "WIDER_hard",
    "imagenet": "DET_AP",
}
"""The number of each protocol that chooses the best weights, where nobody says one."""


class CocoEvalConfig(Config):
    """Which protocols measure, and COCO's settings: with others than its own, numbers do not compare with papers."""

    protocols: Annotated[tuple[ProtocolName, ...], Field(min_length=1)] = Field(
        default=("coco",), description="how detections are measured; train.best_metric names a number of any of them"
    )
    wider_truth: str | None = Field(
        default=None,
        description="folder of WIDER FACE's published wider_face_val.mat and wider_{easy,medium,hard}_val.mat; none: "
        "looked for around the images",
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

    @field_validator("protocols")
    @classmethod
    def _once(cls, names: Any) -> Any:
        if len(set(names)) < len(names):
            raise ValueError(f"protocols name each one once, got {', '.join(names)}")
        return names
