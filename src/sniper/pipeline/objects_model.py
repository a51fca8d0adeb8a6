"""The detector that comes with the package: where things are, whatever they are (``docs/new_classes.md``)."""

from collections.abc import Iterable

from sniper.errors import CheckpointError
from sniper.fetch.shipped import shipped
from sniper.new_classes.objects import OBJECTS_FILE
from sniper.pipeline.detectors import build_detector
from sniper.pipeline.library_models import LibraryDetector
from sniper.recipe import Recipe
from sniper.training.checkpoint import load_into, load_weights

TRUNK = "backbone.body."  # names of the weights that the file lacks: those of ImageNet, kept while it was trained


def objects_detector(recipe: Recipe | None = None, overrides: Iterable[str] = ()) -> LibraryDetector:
    """The detector ``sniper/objects``, class ``object``.

    Raises:
        CheckpointError: a file of the package is gone, or ``recipe`` is another detector's.
    """
    trunk = shipped("torchvision/mobilenet_v2")
    if trunk is None:
        raise CheckpointError("MobileNetV2's weights were expected in the sniper package but are gone; reinstall it")
    weights, meta = load_weights(OBJECTS_FILE)
    settings = (recipe or Recipe.parse(meta.recipe, f"recipe inside {OBJECTS_FILE}")).changed(overrides)
    detector = build_detector(settings.changed([f"model.weights={trunk}"]), len(meta.class_names))
    own = {name: tensor for name, tensor in detector.state_dict().items() if name.startswith(TRUNK)}
    load_into(detector, own | {name: tensor.float() for name, tensor in weights.items()}, OBJECTS_FILE)
    return LibraryDetector(detector, settings, meta.class_names, meta.class_ids)
