"""From a recipe to a detector, and from a detector and a dataset to the levels that it is trained at."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from sniper.auto_levels import derive_pyramid, with_scout
from sniper.data.table import AnnotationTable
from sniper.detectors.config import CustomConfig, ModelConfig
from sniper.detectors.from_torchvision.build import build_torchvision
from sniper.detectors.from_torchvision.config import TorchvisionConfig
from sniper.detectors.from_torchvision.detector import TorchvisionDetector
from sniper.detectors.from_transformers.build import build_transformers
from sniper.detectors.from_transformers.config import TransformersConfig
from sniper.detectors.from_transformers.detector import TransformersDetector
from sniper.detectors.original.config import OriginalConfig
from sniper.detectors.original.network import OriginalSniper, build_original
from sniper.detectors.protocol import Detector
from sniper.detectors.rfcn3k.clusters import read_clusters
from sniper.detectors.rfcn3k.config import Rfcn3kConfig
from sniper.detectors.rfcn3k.network import Rfcn3k, build_rfcn3k
from sniper.detectors.sniper.network import Sniper, build_sniper
from sniper.detectors.ssh.config import SshConfig
from sniper.detectors.ssh.network import Ssh, build_ssh
from sniper.detectors.traits import DetectorTraits, custom_config, promised_traits, traits_of
from sniper.errors import RecipeError
from sniper.pyramid import Pyramid
from sniper.recipe import Recipe

ANY_CHIP_PX = 512  # side of a chip where nothing speaks for another


def build_detector(
    recipe: Recipe, num_classes: int, *, class_names: Sequence[str] = (), pretrained: bool = True
) -> nn.Module:
    """The detector that a recipe names; ``pretrained=False`` leaves the weights of ``recipe.model`` unread.

    ``class_names`` say which classes are meant where these weights know classes by name.

    Raises:
        RecipeError: the recipe is for a user's own detector, or names a network that there is not.
        CheckpointError: the weights cannot be had or do not fit.
    """
    config = recipe.model
    if isinstance(config, CustomConfig):
        raise RecipeError(
            f"this recipe is for your own detector {config.name} (model.kind: custom), which sniper cannot build; "
            "build it in Python as it was for training and pass it as detector=..."
        )
    if isinstance(config, OriginalConfig):
        return build_original(config, num_classes)
    if isinstance(config, Rfcn3kConfig):
        return build_rfcn3k(config, torch.zeros(num_classes, dtype=torch.int64), pretrained=pretrained)
    if isinstance(config, SshConfig):
        return build_ssh(config, num_classes, pretrained=pretrained)
    if isinstance(config, TorchvisionConfig):
        return build_torchvision(config, num_classes, class_names=class_names, pretrained=pretrained)
    if isinstance(config, TransformersConfig):
        return build_transformers(config, num_classes, class_names=class_names, pretrained=pretrained)
    return build_sniper(config, num_classes, pretrained=pretrained)


def group_classes(detector: nn.Module, recipe: Recipe, class_names: Sequence[str]) -> None:
    """Give an R-FCN-3K detector the super-classes of its recipe's file; others are left alone.

    For a new training only: a checkpoint keeps them.

    Raises:
        RecipeError: the file cannot be read, or does not know all classes.
    """
    if isinstance(detector, Rfcn3k) and detector.config.clusters is not None:
        groups = read_clusters(detector.config.clusters, class_names, detector.config.super_classes)
        detector.head.membership.group.copy_(torch.tensor(groups))


def with_detector(recipe: Recipe, detector: nn.Module) -> Recipe:
    """The recipe with ``model`` as ``detector`` is, whatever it said before: what is kept tells the truth.

    Raises:
        RecipeError: ``detector`` is none.
    """
    if not isinstance(detector, Detector):
        raise RecipeError(f"{type(detector).__name__} is no detector: it needs the methods losses and detect")
    return recipe.model_copy(update={"model": settings_of(detector)})


def settings_of(detector: nn.Module) -> ModelConfig:
    """The settings that build ``detector`` again, or what is known of a user's own; a subclass of ours is one, too."""
    if type(detector) in (Sniper, OriginalSniper, Rfcn3k, Ssh, TransformersDetector):
        config: ModelConfig = detector.config  # type: ignore[assignment]
        return config
    if isinstance(detector, TorchvisionDetector) and detector.config is not None:
        return detector.config
    return custom_config(traits_of(detector))


def seeded_detector(recipe: Recipe, class_names: Sequence[str], *, pretrained: bool) -> nn.Module:
    """The detector of a recipe for these classes, its random weights drawn from ``train.seed``."""
    torch.manual_seed(recipe.train.seed)
    return build_detector(recipe, len(class_names), class_names=class_names, pretrained=pretrained)


def resolve_pyramid(
    recipe: Recipe, table: AnnotationTable, traits: DetectorTraits | None = None
) -> tuple[Recipe, Pyramid]:
    """The pyramid of a recipe for a dataset, and the recipe with it written out.

    ``traits`` are those of the detector that will be trained; none: what a detector built from the recipe will have.
    """
    traits = promised_traits(recipe.model) if traits is None else traits
    wanted = recipe.pyramid
    chip_px = None if wanted.chip_px == "auto" else wanted.chip_px
    if wanted.levels == "auto":
        pyramid = _derived(recipe, table, chip_px, traits)
        if chip_px is None and pyramid.chip_px != ANY_CHIP_PX:
            pyramid = _derived(recipe, table, pyramid.chip_px, traits)  # a stride in px is another share of this chip
        if traits.has_focus:
            labels = getattr(recipe.model, "focus_labels", None)
            pyramid = with_scout(pyramid) if labels is None else with_scout(pyramid, labels.small_px)
    else:
        pyramid = Pyramid(levels=wanted.levels, chip_px=chip_px or ANY_CHIP_PX)
    written = wanted.model_copy(update={"levels": pyramid.levels, "chip_px": pyramid.chip_px})
    return recipe.model_copy(update={"pyramid": written}), pyramid


def _derived(recipe: Recipe, table: AnnotationTable, chip_px: int | None, traits: DetectorTraits) -> Pyramid:
    """Levels from the sizes of a dataset's objects, valid by the rule that mining will apply."""
    wanted, rule = recipe.pyramid, recipe.chips.size_rule(chip_px or ANY_CHIP_PX)
    learned = ~table.ignored
    boxes = table.boxes_xyxy[learned]
    object_px = traits.comfortable_px if wanted.object_px == "auto" else wanted.object_px
    return derive_pyramid(
        np.subtract(boxes[:, 2:], boxes[:, :2], dtype=np.float64),
        table.image_rows_of_objects()[learned],
        table.sizes_wh,
        object_px=float(object_px),
        chip_px=chip_px,
        max_scale=wanted.max_scale,
        max_spread=wanted.max_spread,
        economy=wanted.economy,
        margin=rule.stride_max / (chip_px or ANY_CHIP_PX),
        min_side_px=rule.min_side_px,
        object_class=table.labels[learned],
    )
