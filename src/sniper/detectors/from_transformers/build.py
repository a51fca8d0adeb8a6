"""From settings, or from a network of transformers, to a detector."""

import inspect
import json
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import nn

from sniper.detectors.from_transformers.architectures import ARCHITECTURES
from sniper.detectors.from_transformers.config import IMAGENET_MEAN, IMAGENET_STD, TransformersConfig
from sniper.detectors.from_transformers.detector import TransformersDetector
from sniper.detectors.from_transformers.geometry import input_sizes
from sniper.detectors.from_transformers.models import CONFIG_FILE, RECIPES, read_config
from sniper.errors import RecipeError

# Types whose image processor leaves colours in [0, 1]; the others take ImageNet's mean and deviation.
_PLAIN_COLOURS = ("rt_detr", "rt_detr_v2", "d_fine", "deimv2")
# What a saved configuration says beside the architecture.
_NOT_ARCHITECTURE = (
    "architectures", "auto_map", "dtype", "id2label", "label2id", "num_labels", "problem_type", "torch_dtype",
    "transformers_version", "_name_or_path",
)  # fmt: skip


def from_transformers(net: nn.Module, **settings: Any) -> TransformersDetector:
    """A network of ``AutoModelForObjectDetection`` as a detector for chips.

    Its loss leaves out ignored objects and crowds; without them it is the library's own. It is trained as
    ``detector=``, shares its weights with ``net``, and its checkpoints need neither ``net`` nor a network again.

    Args:
        net: a DETR, Conditional, Deformable or DAB-DETR, RT-DETR, D-FINE, DEIMv2, LW-DETR, RF-DETR, YOLOS or Table
            Transformer, for as many classes as the dataset has.
        settings: of ``TransformersConfig``, such as ``mean``, ``std``, ``max_detections``.

    Raises:
        RecipeError: it is none of them, or transformers is not installed.
    """
    kind = getattr(getattr(net, "config", None), "model_type", None)
    if kind not in RECIPES:
        raise RecipeError(f"{type(net).__name__} is no detector of transformers that chips work with; {_known()}")
    config = TransformersConfig(**{"name": str(getattr(net, "name_or_path", "") or kind), "weights": None, **settings})
    return _wrapped(net, config)


def build_transformers(
    config: TransformersConfig, num_classes: int, *, class_names: Sequence[str] = (), pretrained: bool = True
) -> TransformersDetector:
    """The detector of ``config`` for ``num_classes`` classes.

    ``class_names`` say which classes of the library's weights are meant. ``pretrained=False`` leaves these unread, for
    when a checkpoint is loaded over it.

    Raises:
        RecipeError: transformers is not installed, or the settings do not fit the network.
        CheckpointError: the configuration or the weights cannot be had, or do not fit.
    """
    auto = require_transformers().AutoModelForObjectDetection
    from sniper.detectors.from_transformers.weights import colours_of, load_library_weights, model_folder, names_of

    weights = config.weights if pretrained else None
    folder = model_folder(config.name) if weights is not None or _needs_folder(config) else None
    architecture = _architecture(config, folder)
    names = list(class_names) or [f"class {number}" for number in range(num_classes)]
    net = auto.from_config(_library_config(architecture, names))
    colours = colours_of(folder) if folder is not None else None
    if colours is not None:
        config = config.model_copy(update={"mean": config.mean or colours[0], "std": config.std or colours[1]})
    detector = _wrapped(net, config)
    if weights is not None:
        assert folder is not None
        rows = {name.removeprefix("net."): form for name, form in detector.class_layers.items()}
        load_library_weights(net, folder, rows, names, names_of(read_config(folder / CONFIG_FILE)))
    return detector


def require_transformers() -> Any:
    """The library.

    Raises:
        RecipeError: it, or what its losses need, is not installed.
    """
    try:
        import_module("scipy.optimize")
        return import_module("transformers")
    except ImportError as error:
        raise RecipeError(
            f"detectors of transformers need transformers and scipy ({error}); "
            "pip install 'sniper-detection[transformers]'"
        ) from error


def _wrapped(net: Any, config: TransformersConfig) -> TransformersDetector:
    """The detector of a network, with settings that build the same network again."""
    require_transformers()
    from sniper.detectors.from_transformers.criteria import criterion_of, with_ignored_left_out

    of_library = inspect.unwrap(net.loss_function)  # a network may be wrapped again
    plain = net.config.model_type in _PLAIN_COLOURS
    whole = config.model_copy(
        update={
            "architecture": _whole_architecture(net.config),
            "mean": config.mean or ((0.0,) * 3 if plain else IMAGENET_MEAN),
            "std": config.std or ((1.0,) * 3 if plain else IMAGENET_STD),
        }
    )
    net.loss_function = with_ignored_left_out(of_library)
    softmax = criterion_of(of_library) == "ImageLoss"
    return TransformersDetector(net, whole, input_sizes(net.config), softmax=softmax)


def _needs_folder(config: TransformersConfig) -> bool:
    """Whether the architecture is only in the files of the model."""
    return "model_type" not in config.architecture and config.name not in ARCHITECTURES


def _architecture(config: TransformersConfig, folder: Path | None) -> dict[str, Any]:
    """All settings of the library's configuration that differ from its defaults."""
    if "model_type" in config.architecture:
        return config.architecture
    own = read_config(folder / CONFIG_FILE) if folder is not None else ARCHITECTURES[config.name]
    return {name: value for name, value in own.items() if name not in _NOT_ARCHITECTURE} | config.architecture


def _library_config(architecture: dict[str, Any], names: Sequence[str]) -> Any:
    """The library's configuration for these classes."""
    kind = architecture.get("model_type")
    if kind not in RECIPES:
        raise RecipeError(f"model.architecture: model_type {kind!r} is no detector that chips work with; {_known()}")
    settings = {name: value for name, value in architecture.items() if name != "model_type"}
    if "use_pretrained_backbone" in settings:
        settings["use_pretrained_backbone"] = False  # weights are read from one file
    try:
        found = require_transformers().AutoConfig.for_model(kind, **settings)
        found.id2label = dict(enumerate(names))
        found.label2id = {name: number for number, name in enumerate(names)}
    except Exception as error:  # whatever the library's checks raise for a value that they do not take
        reason = " ".join(str(error).split())
        raise RecipeError(f"model.architecture: transformers takes no such {kind} ({reason[:200]})") from error
    return found


def _whole_architecture(config: Any) -> dict[str, Any]:
    """What a configuration of the library differs in from the defaults, to build it again without its file."""
    own = {name: value for name, value in config.to_diff_dict().items() if name not in _NOT_ARCHITECTURE}
    # As files hold it: names of an inner configuration are numbered by integers, and would come back as strings.
    written: dict[str, Any] = json.loads(json.dumps({"model_type": config.model_type, **own}))
    return written


def _known() -> str:
    return f"known are {', '.join(RECIPES)}"
