"""What a user may say about a dataset, by the names that messages give it, and the names that splits have."""

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, get_args

from sniper.errors import DataError

Format = Literal["coco", "yolo", "voc", "openimages", "wider", "imagenet"]
FORMATS: tuple[Format, ...] = get_args(Format)
Role = Literal["train", "evaluate"]
IgnorableFlag = Literal["depiction", "inside", "occluded", "truncated"]  # of ``flags.ObjectFlag``, in small letters


class OptionNames(NamedTuple):
    """How the user says split, form, image folder and classes, where the dataset was named: messages name no other."""

    split: str
    format: str
    images: str
    classes: str


IN_PYTHON = OptionNames("split=", "format=", "image_root=", "classes=")
AS_WORDS = OptionNames("split=", "format=", "images=", "classes=")  # of functions that take the words of a verb
OF_VERBS = OptionNames("--split", "--format", "--images", "--classes")

_SAME = (("train", "training"), ("val", "valid", "validation"), ("test", "testing"))
_OF_ROLE: dict[Role, tuple[str, ...]] = {"train": ("train", "trainval"), "evaluate": ("val", "test")}


def aliases(split: str) -> tuple[str, ...]:
    """The names that a split goes by, the given one first: val, valid and validation are one."""
    same = next((names for names in _SAME if split.lower() in names), ())
    return tuple(dict.fromkeys([split, *same]))


def known_splits(names: Iterable[str]) -> list[str]:
    """Those of ``names`` that usually name splits, sorted."""
    known = {"trainval", *(name for names in _SAME for name in names)}
    return sorted(name for name in set(names) if name.lower() in known)


def find_split(wanted: str, there: Sequence[str]) -> str | None:
    """The name of the split that is meant: as written, else in any case, else by another name of the same."""
    if wanted in there:
        return wanted
    lower = {name.lower(): name for name in reversed(there)}
    return next((lower[name.lower()] for name in aliases(wanted) if name.lower() in lower), None)


def split_of_role(place: object, there: Sequence[str], role: Role, options: OptionNames) -> str | None:
    """The split to train or to evaluate on where the user names none; None: the dataset has no splits.

    Training takes train (trainval where there is no train), evaluation val, and test where there is no val.

    Raises:
        DataError: it has splits, but none for this.
    """
    if not there:
        return None
    found = next((split for name in _OF_ROLE[role] if (split := find_split(name, there)) is not None), None)
    if found is None:
        what = "training needs train" if role == "train" else "evaluation needs val or test"
        raise DataError(
            f"{place} has the split{'s' if len(there) > 1 else ''} {', '.join(there)}; {what}; "
            f"choose one of these with {options.split}, or give other data"
        )
    return found
