"""The detector that comes with the package: where things are, whatever they are (``docs/new_classes.md``)."""

from collections.abc import Iterable

from sniper.fetch.shipped import objects_files
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
    trunk, file = objects_files()
    weights, meta = load_weights(file)
    settings = (recipe or Recipe.parse(meta.recipe, f"recipe inside {file}")).changed(overrides)
    detector = build_detector(settings.changed([f"model.weights={trunk}"]), len(meta.class_names))
    own = {name: tensor for name, tensor in detector.state_dict().items() if name.startswith(TRUNK)}
    load_into(detector, own | {name: tensor.float() for name, tensor in weights.items()}, file)
    return LibraryDetector(detector, settings, meta.class_names, meta.class_ids)
