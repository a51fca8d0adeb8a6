"""How many chips one step learns from, and the learning rate that goes with it."""

from collections.abc import Callable

from sniper.recipe import Recipe
from sniper.training.devices import on_main, process_device, this_process
from sniper.training.optim import with_rate_for


def chips_a_step(recipe: Recipe) -> int:
    """Chips of one step: of all batches that it accumulates, in all processes of this launch."""
    return this_process()[1] * recipe.loader.batch_size * recipe.train.accumulate


def with_rate_of_step(recipe: Recipe, log: Callable[[str], None]) -> Recipe:
    """The recipe with the learning rate for as many chips a step as there are, if it says for how many its own is."""
    before = recipe.train
    config = with_rate_for(before, chips_a_step(recipe))
    if config is before:
        return recipe
    scaled = f"learning rate {config.learning_rate:.3g}, from {before.learning_rate:.3g} for {before.rate_batch} chips"
    on_main(lambda: log(f"{scaled} a step (train.rate_batch)"))
    return recipe.model_copy(update={"train": config})


def launch_of(recipe: Recipe) -> str:
    """Where a run trains, for the log."""
    processes, device = this_process()[1], "cpu" if recipe.train.device == "cpu" else process_device()
    where = f"{device}, {processes} process{'es' if processes > 1 else ''}"
    return f"training on {where}, {chips_a_step(recipe)} chips a step"
