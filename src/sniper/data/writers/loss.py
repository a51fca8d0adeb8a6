"""What a form of dataset cannot hold."""

from collections.abc import Iterable

from sniper.data.flags import ObjectFlag, any_flag
from sniper.data.table import AnnotationTable

_WORDS = {
    ObjectFlag.CROWD: "crowd",
    ObjectFlag.DIFFICULT: "difficult",
    ObjectFlag.GROUP_OF: "group-of",
    ObjectFlag.DEPICTION: "depiction",
    ObjectFlag.OCCLUDED: "occluded",
    ObjectFlag.TRUNCATED: "truncated",
    ObjectFlag.INSIDE: "inside",
}


def lost_flags(table: AnnotationTable, flags: Iterable[ObjectFlag]) -> list[str]:
    """A line for each of the ``flags`` that some object has."""
    counts = {flag: int(any_flag(table.flags, int(flag)).sum()) for flag in flags}
    return [f"the mark {_WORDS[flag]} of {count} objects" for flag, count in counts.items() if count]


def lost_tables(table: AnnotationTable) -> list[str]:
    """A line for verified labels of whole images and for a tree of classes, where there are any."""
    lines = ["labels of whole images"] if table.image_labels is not None else []
    return lines + (["the tree of classes"] if table.class_ancestors is not None else [])
