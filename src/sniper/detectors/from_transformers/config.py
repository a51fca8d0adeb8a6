"""Settings of transformers' detectors; without torch."""

from typing import Annotated, Any, Literal

from pydantic import Field

from sniper.detectors.from_transformers.architectures import ARCHITECTURES
from sniper.detectors.from_transformers.models import PREFIX
from sniper.settings import Config

# Types with one map, of stride 32; others have maps of strides 8, 16 and 32, or one of stride 16.
_COARSE = ("detr", "table-transformer", "conditional_detr", "dab-detr")
Channels = tuple[float, float, float]
Positive = Annotated[float, Field(gt=0)]
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class TransformersConfig(Config):
    """A query-based detector of transformers, with its own losses; ignored objects are left out of them."""

    kind: Literal["transformers"] = Field(default="transformers", description="a detector of transformers")
    name: str = Field(
        default="PekingU/rtdetr_v2_r18vd",
        description="OWNER/NAME on the Hugging Face hub, or a folder with config.json and model.safetensors",
    )
    weights: Literal["library"] | None = Field(
        default="library",
        description="library: those of name, rows of classes taken over by their names; null: random",
    )
    architecture: dict[str, Any] = Field(
        default_factory=dict,
        description="settings of the library's configuration in place of those of name; with model_type: all that "
        "differ from the library's defaults, and name is a name alone",
    )
    mean: Channels | None = Field(
        default=None, description="mean colour that is taken off RGB in [0, 1]; null: as name was trained"
    )
    std: tuple[Positive, Positive, Positive] | None = Field(
        default=None, description="deviation that RGB is divided by; null: as name was trained"
    )
    ignore_iou: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="IoU with an ignored object above which a query without an object is not background, unless it "
        "overlaps a learned one better",
    )
    crowd_share: float = Field(
        default=0.5, ge=0, le=1, description="share inside a crowd region above which such a query is not background"
    )
    score_threshold: float = Field(
        default=0.01, ge=0, lt=1, description="detections with a lower class probability are dropped"
    )
    max_detections: int = Field(
        default=300, ge=1, description="at most so many detections per padded input, of all queries and classes"
    )

    @property
    def network(self) -> str:
        """Name of the network that is trained."""
        return PREFIX + self.name

    @property
    def stride(self) -> int:
        """Network px per cell of the one map, or of the middle one, as far as its type is known."""
        architecture = self.architecture if "model_type" in self.architecture else ARCHITECTURES.get(self.name, {})
        return 32 if architecture.get("model_type") in _COARSE else 16
