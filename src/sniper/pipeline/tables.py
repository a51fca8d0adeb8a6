"""The datasets of a run: what a recipe names, and any dataset as a trained detector sees it."""

from pathlib import Path

from sniper.data.options import OptionNames, Role
from sniper.data.source import DataSource
from sniper.data.table import AnnotationTable
from sniper.errors import DataError
from sniper.pipeline.named_files import named_training_data
from sniper.pipeline.sources import BadImage
from sniper.recipe import Recipe

Data = Path | str | DataSource | AnnotationTable

_TRAIN = OptionNames(
    "--split (data.train_split)", "--format (data.format)", "--images (data.image_root)", "--classes (data.classes)"
)
_EVALUATE = OptionNames(
    "--val-split (data.evaluate_split)",
    "--val-format (data.evaluate_format)",
    "--val-images (data.evaluate_image_root)",
    "--classes (data.classes)",
)


def training_table_of(recipe: Recipe) -> AnnotationTable:
    """What ``recipe.data.train`` names.

    Raises:
        RecipeError: it names nothing.
        DataError: what it names cannot be used.
    """
    data = recipe.data
    source = DataSource(
        named_training_data(recipe),
        data.train_split,
        data.format,
        data.image_root,
        data.classes,
        _TRAIN,
        data.ignore_flags,
    )
    table = source.open("train", needs_images=True, skip_bad_images=recipe.loader.on_bad_image == "skip")
    return table.of_one_class() if data.class_agnostic else table


def evaluation_table_of(recipe: Recipe, class_names: tuple[str, ...]) -> AnnotationTable:
    """What ``recipe.data.evaluate`` names, which must be set, with the classes of the training data.

    Raises:
        DataError: it cannot be used.
    """
    data = recipe.data
    assert data.evaluate is not None
    source = DataSource(
        data.evaluate,
        data.evaluate_split,
        data.evaluate_format or data.format,
        data.evaluate_image_root or data.image_root,
        options=_EVALUATE,
        ignore_flags=data.ignore_flags,
    )
    agnostic = data.class_agnostic
    return table_for(class_names, source, on_bad_image=recipe.loader.on_bad_image, class_agnostic=agnostic)


def table_for(
    class_names: tuple[str, ...],
    data: Data,
    split: str | None = None,
    *,
    role: Role = "evaluate",
    on_bad_image: BadImage = "stop",
    class_agnostic: bool = False,
) -> AnnotationTable:
    """A dataset as a detector of these classes sees it: its labels; classes the data lack have no objects.

    ``split`` is for a dataset by path; ``role`` says which split is meant where none is named. For a detector that is
    ``class_agnostic`` (``data.class_agnostic`` of its recipe) all objects are of its one class.
    """
    skip = on_bad_image == "skip"
    if isinstance(data, AnnotationTable):
        table = data.of_one_class() if class_agnostic and data.class_names != class_names else data
        return table if table.class_names == class_names else table.with_classes(class_names, missing="allow")
    source = data if isinstance(data, DataSource) else DataSource(data, split)
    if class_agnostic:
        return source.open(role, needs_images=True, skip_bad_images=skip).of_one_class()
    return source.open(role, known_as=class_names, needs_images=True, skip_bad_images=skip)


def table_of(data: Data, split: str | None = None, *, needs_images: bool = False) -> AnnotationTable:
    """A dataset to learn from, with all of its classes; arguments as for ``table_for``."""
    if isinstance(data, AnnotationTable):
        return data
    source = data if isinstance(data, DataSource) else DataSource(data, split)
    return source.open("train", needs_images=needs_images)


def require_objects(table: AnnotationTable, purpose: str) -> None:
    """Refuse a dataset without a single object that counts.

    Raises:
        DataError: it has none; how many are left out is said.
    """
    if table.ignored.all():
        raise DataError(
            f"the data at {table.root} have no object {purpose}: {len(table)} images, {table.num_objects} objects, all "
            f"of them ignored, of the classes {', '.join(table.class_names[:20]) or 'none'}; correct the annotations, "
            "or choose other data or classes"
        )


def words_of(data: Data | None, val: Data | None) -> dict[str, str | Path | tuple[str, ...] | None]:
    """What ``data`` and ``val`` say, as words of ``short_forms``; of tables nothing, which are at hand."""
    words: dict[str, str | Path | tuple[str, ...] | None] = {}
    if isinstance(data, DataSource):
        words |= {"split": data.split, "format": data.format, "images": data.images, "classes": data.classes}
        words["ignore_flags"] = data.ignore_flags or None
    if isinstance(val, DataSource):
        words |= {"val_split": val.split, "val_format": val.format, "val_images": val.images}
    for word, one in (("data", data), ("val", val)):
        words[word] = None if isinstance(one, AnnotationTable) else one.path if isinstance(one, DataSource) else one
    return words
