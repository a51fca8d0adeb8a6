"""Dividing a dataset in two, reproducibly, without separating images that belong together."""

import hashlib
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sniper.errors import DataError, RecipeError


def groups_of(file_names: Sequence[str], pattern: str | None) -> list[str]:
    """(I,) the group of each image: what ``pattern`` finds in its name, its own name where it finds nothing.

    ``pattern`` is a regular expression; its first group in brackets counts, or all that it matches. ``^(.+?)_\\d+``
    groups ``street_0001.jpg`` and ``street_0002.jpg``.

    Raises:
        RecipeError: it is no regular expression.
        DataError: it finds nothing in any name.
    """
    if pattern is None:
        return list(file_names)
    try:
        wanted = re.compile(pattern)
    except re.error as error:
        raise RecipeError(f"--group-by {pattern}: not a regular expression ({error}); ^(.+?)_ is one") from error
    matches = [wanted.search(name) for name in file_names]
    if not any(matches):
        raise DataError(f"--group-by {pattern} finds nothing in {len(file_names)} names such as {file_names[0]}")
    found = [None if match is None else (match.groups() or (match[0],))[0] for match in matches]
    return [name if key is None else key for name, key in zip(file_names, found, strict=True)]


def divide(groups: Sequence[str], share: float, seed: int = 0) -> NDArray[np.bool_]:
    """(I,) which images are in the first part, about ``share`` of all; a group is never separated.

    Groups are ordered by a hash of their name and the seed, so that an image added later moves few others. Both parts
    get at least one group.

    Raises:
        DataError: there is one group only.
    """
    names, members, counts = np.unique(np.array(groups, dtype=object), return_inverse=True, return_counts=True)
    if len(names) < 2:
        raise DataError(f"all {len(groups)} images are of one group ({names[0]}); a split would separate it")
    keys = [f"{seed} {name}".encode("utf-8", "surrogateescape") for name in names]
    order = np.argsort([hashlib.sha256(key).hexdigest() for key in keys])
    before = np.concatenate([[0], np.cumsum(counts[order])])
    # The cut between two groups that comes nearest to the wanted share.
    cut = 1 + int(np.argmin(np.abs(before[1:-1] - share * len(groups))))
    first = np.zeros(len(names), np.bool_)
    first[order[:cut]] = True
    return first[members]
