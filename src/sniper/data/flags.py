"""What an annotation says of an object beside its box and class, as bits of one byte."""

from collections.abc import Iterable
from enum import IntFlag

import numpy as np
from numpy.typing import NDArray


class ObjectFlag(IntFlag):
    """Marks of an object; COCO has the first, Pascal VOC and OpenImages the others."""

    CROWD = 1  # one box around many objects that are not told apart
    DIFFICULT = 2  # one object that an evaluation neither asks for nor counts as wrong
    GROUP_OF = 4  # one box around more than five objects that touch (OpenImages)
    DEPICTION = 8  # a drawing or a model of the object
    OCCLUDED = 16  # partly behind something
    TRUNCATED = 32  # reaches beyond the image
    INSIDE = 64  # seen from inside


REGION_FLAGS = int(ObjectFlag.CROWD | ObjectFlag.GROUP_OF)
IGNORED_FLAGS = int(ObjectFlag.CROWD | ObjectFlag.GROUP_OF | ObjectFlag.DIFFICULT)
KNOWN_FLAGS = sum(ObjectFlag)


def any_flag(flags: NDArray[np.uint8], wanted: int) -> NDArray[np.bool_]:
    """(N,) whether an object has one of the ``wanted`` flags."""
    return np.asarray((flags & np.uint8(wanted)) != 0)


def ignoring(flags: NDArray[np.uint8], names: Iterable[str]) -> NDArray[np.uint8]:
    """(N,) flags in which objects with one of the named ones, in small letters, are ignored as difficult ones are."""
    wanted = sum(ObjectFlag[name.upper()] for name in names)
    return flags | flags_where(any_flag(flags, int(wanted)), ObjectFlag.DIFFICULT)


def flags_where(marked: NDArray[np.bool_], flag: ObjectFlag) -> NDArray[np.uint8]:
    """(N,) ``flag`` for the ``marked`` objects, none for the others."""
    return np.where(marked, np.uint8(flag), np.uint8(0))
