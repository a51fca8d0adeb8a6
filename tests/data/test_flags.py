"""Flags of objects: which are ignored, and which of these are regions of many."""

from dataclasses import replace

import numpy as np
from test_annotation_table import make_table

from sniper.data.flags import ObjectFlag, any_flag, flags_where


def test_flags_tell_what_is_ignored_and_what_is_a_region():
    each = [None, *ObjectFlag]
    table = replace(make_table(2, len(each), masks=False), flags=np.array([0, *ObjectFlag], np.uint8))
    ignored = {flag for flag, marked in zip(each, table.ignored, strict=True) if marked}
    regions = {flag for flag, marked in zip(each, table.regions, strict=True) if marked}
    assert ignored == {ObjectFlag.CROWD, ObjectFlag.DIFFICULT, ObjectFlag.GROUP_OF}
    assert regions == {ObjectFlag.CROWD, ObjectFlag.GROUP_OF}


def test_flags_are_bytes_and_add_up():
    marked = flags_where(np.array([True, False]), ObjectFlag.TRUNCATED) | flags_where(
        np.array([True, True]), ObjectFlag.DEPICTION
    )
    assert marked.dtype == np.uint8
    assert marked.tolist() == [ObjectFlag.TRUNCATED | ObjectFlag.DEPICTION, ObjectFlag.DEPICTION]
    assert any_flag(marked, ObjectFlag.TRUNCATED | ObjectFlag.INSIDE).tolist() == [True, False]
    assert any_flag(np.zeros(0, np.uint8), ObjectFlag.CROWD).tolist() == []
