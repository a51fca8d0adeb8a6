"""The files that a recipe names, looked for before anything that takes seconds; without torch."""

from pathlib import Path

from sniper.data.place import existing_dataset, existing_proposals
from sniper.detectors.from_torchvision.config import TorchvisionConfig
from sniper.detectors.from_transformers.config import TransformersConfig
from sniper.detectors.rfcn3k.config import Rfcn3kConfig
from sniper.detectors.ssh.config import SshConfig
from sniper.detectors.two_stage_config import TwoStageConfig
from sniper.errors import RecipeError
from sniper.files import existing
from sniper.recipe import Recipe
from sniper.training.weights_file import checkpoint_file

# What ``negatives.proposals`` says in place of a file.
AUTO = "auto"  # a copy of the detector learns to propose, before training
SELF = "self"  # the detector itself is asked while it trains


def named_training_data(recipe: Recipe) -> str:
    """What ``recipe.data.train`` names.

    Raises:
        RecipeError: it names nothing.
    """
    if recipe.data.train is None:
        raise RecipeError("data.train is not set: name a dataset, for example --data path/to/instances.json")
    return recipe.data.train


def require_named_files(recipe: Recipe, *, fresh: bool) -> None:
    """Refuse a recipe that names files that are not there; what only begins a run matters if it is ``fresh``.

    Raises:
        RecipeError, DataError, CheckpointError: no training data are named, or what is named is not there.
    """
    existing_dataset(named_training_data(recipe))
    if recipe.data.evaluate is not None:
        existing_dataset(recipe.data.evaluate)
    if fresh and recipe.weights is not None:
        checkpoint_file(recipe.weights)
    if fresh and isinstance(recipe.model, Rfcn3kConfig) and recipe.model.clusters is not None:
        existing(recipe.model.clusters, "give model.clusters the file with the super-class of each class")
    if fresh and recipe.negatives.proposals not in (None, AUTO, SELF):
        existing_proposals(str(recipe.negatives.proposals))


def with_absolute_paths(recipe: Recipe) -> Recipe:
    """The recipe with the files and folders that it names by absolute paths: it is kept, and read from elsewhere."""
    data, model = recipe.data, recipe.model
    places = ("train", "evaluate", "image_root", "evaluate_image_root")
    update: dict[str, object] = {
        "data": data.model_copy(update={name: _absolute(getattr(data, name)) for name in places}),
        "weights": _absolute(recipe.weights),
        "negatives": recipe.negatives.model_copy(update={"proposals": _absolute(recipe.negatives.proposals)}),
    }
    if isinstance(model, TwoStageConfig | SshConfig | TorchvisionConfig):
        changed = {"weights": _absolute(model.weights)}
        if isinstance(model, Rfcn3kConfig):
            changed["clusters"] = _absolute(model.clusters)
        update["model"] = model.model_copy(update=changed)
    if isinstance(model, TransformersConfig):
        update["model"] = model.model_copy(update={"name": _absolute(model.name)})
    return recipe.model_copy(update=update)


def _absolute(named: str | None) -> str | None:
    """The path, if it is one of something that is there; words such as ``auto`` and ``coco`` stay."""
    if named is None or named in (AUTO, SELF, "imagenet", "coco"):
        return named
    place = Path(named).expanduser()
    return str(place.absolute()) if place.exists() else named
