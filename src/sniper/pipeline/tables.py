"""The datasets that a recipe names."""

from sniper.data.source import load_dataset
from sniper.data.table import AnnotationTable
from sniper.pipeline.evaluate import table_for
from sniper.pipeline.named_files import named_training_data
from sniper.recipe import Recipe


def training_table_of(recipe: Recipe) -> AnnotationTable:
    """What ``recipe.data.train`` names.

    Raises:
        RecipeError: it names nothing.
        DataError: what it names cannot be used.
    """
    data = recipe.data
    return load_dataset(
        named_training_data(recipe),
        data.train_split,
        format=data.format,
        image_root=data.image_root,
        classes=data.classes,
        skip_bad_images=recipe.loader.on_bad_image == "skip",
    )


def evaluation_table_of(recipe: Recipe, class_names: tuple[str, ...]) -> AnnotationTable:
    """What ``recipe.data.evaluate`` names, which must be set, with the classes of the training data.

    Raises:
        DataError: it cannot be used.
    """
    data = recipe.data
    assert data.evaluate is not None
    return table_for(
        class_names,
        data.evaluate,
        data.evaluate_split,
        on_bad_image=recipe.loader.on_bad_image,
        format=data.format,
        image_root=data.image_root,
    )
