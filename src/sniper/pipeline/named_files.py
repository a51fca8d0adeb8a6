"""The files that a recipe names, looked for before anything that takes seconds; without torch."""

from sniper.data.place import existing_dataset, existing_proposals
from sniper.errors import RecipeError
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
    if fresh and recipe.negatives.proposals not in (None, AUTO, SELF):
        existing_proposals(str(recipe.negatives.proposals))
