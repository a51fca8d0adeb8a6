"""What the code around a detector must know of it: read off the detector as it was built, never off a recipe.

Nothing here needs torch: a trait is an attribute of the detector, or one that it does not have.
"""

from dataclasses import dataclass

from sniper.detectors.config import CustomConfig, ModelConfig
from sniper.detectors.from_torchvision.config import TorchvisionConfig
from sniper.detectors.from_transformers.config import TransformersConfig
from sniper.detectors.rfcn3k.config import Rfcn3kConfig
from sniper.errors import RecipeError

COMFORTABLE_CELLS = 4  # an object this many feature cells long is seen well: the reference ranges centre there
_CLASSES = {"sniper": "Sniper", "original": "OriginalSniper", "ssh": "Ssh"}  # by the kind of their settings
ANY_COMFORTABLE_PX = 64.0  # where a detector tells neither its stride nor the size that it sees best


@dataclass(frozen=True, slots=True)
class DetectorTraits:
    """What a detector is and can do, as far as mining, loading and inference ask."""

    name: str  # its class
    comfortable_px: float  # object size that it sees best, sqrt(area) in network px
    stride: int | None = None  # network px per cell of its feature map; None: it does not tell
    predicts_masks: bool = False  # then training needs outlines
    has_focus: bool = False  # with AutoFocus's branch: a coarse level before a single one pays


def traits_of(detector: object) -> DetectorTraits:
    """The traits of a built detector.

    Ours tell all. Another may have these attributes, or properties, and need not:

    - ``comfortable_px``: object size that it sees best, sqrt(area) in network px; else four cells of ``stride``, else
      64 px. ``pyramid.levels: auto`` scales objects to this size.
    - ``stride``: network px per cell of its feature map.
    - ``predicts_masks``, ``focus_stride``: see ``detectors.protocol``.

    Raises:
        RecipeError: ``stride`` or ``comfortable_px`` is no positive number.
    """
    stride, comfortable_px = _positive(detector, "stride"), _positive(detector, "comfortable_px")
    if comfortable_px is None:
        _refuse_other_meaning(detector, "comfortable_px", comfortable_px)
        _refuse_other_meaning(detector, "stride", stride)
        comfortable_px = _comfortable_px(stride)
    return DetectorTraits(
        name=name_of(detector),
        comfortable_px=comfortable_px,
        stride=None if stride is None else int(stride),
        predicts_masks=bool(getattr(detector, "predicts_masks", False)),
        has_focus=getattr(detector, "focus_stride", None) is not None,
    )


def promised_traits(config: ModelConfig) -> DetectorTraits:
    """The traits that a detector built from ``config`` will have, for what is done before one is built.

    For a user's own detector these are the ones that were read off it when it was trained.
    """
    if isinstance(config, CustomConfig):
        return DetectorTraits(config.name, config.comfortable_px, config.stride, config.masks, config.focus)
    if isinstance(config, Rfcn3kConfig):
        return DetectorTraits("Rfcn3k", _comfortable_px(config.stride), config.stride, has_focus=config.focus)
    if isinstance(config, TorchvisionConfig):
        builder = config.builder
        return DetectorTraits(config.class_name, builder.comfortable_px, config.stride, config.masks, config.focus)
    if isinstance(config, TransformersConfig):
        return DetectorTraits("TransformersDetector", _comfortable_px(config.stride), config.stride)
    name, comfortable_px = _CLASSES[config.kind], _comfortable_px(config.stride)
    return DetectorTraits(name, comfortable_px, config.stride, config.masks, config.focus)


def custom_config(traits: DetectorTraits) -> CustomConfig:
    """What a recipe keeps of a user's own detector."""
    return CustomConfig(
        name=traits.name,
        stride=traits.stride,
        comfortable_px=traits.comfortable_px,
        masks=traits.predicts_masks,
        focus=traits.has_focus,
    )


def name_of(detector: object) -> str:
    """The class of a detector; around another one, with that one's: ``WithFocus(RetinaNet)``."""
    inner = getattr(detector, "detector", None)
    own = type(detector).__name__
    return own if inner is None else f"{own}({name_of(inner)})"


def _comfortable_px(stride: float | None) -> float:
    return ANY_COMFORTABLE_PX if stride is None else float(COMFORTABLE_CELLS * stride)


def _positive(detector: object, name: str) -> float | None:
    """A positive number that a detector tells, or None."""
    value = getattr(detector, name, None)
    told = isinstance(value, int | float) and not isinstance(value, bool) and value > 0
    return float(value) if told else None  # type: ignore[arg-type]


def _refuse_other_meaning(detector: object, name: str, number: float | None) -> None:
    value = getattr(detector, name, None)
    if value is not None and number is None:
        raise RecipeError(
            f"{type(detector).__name__}.{name}: expected a positive number of network px, got {value!r}; where {name} "
            "means something else, set comfortable_px to the object size that the detector sees best"
        )
