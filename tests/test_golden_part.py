"""The part of the recorded numbers that ships: small, of the same layout, and a true cut of the whole recording."""

import numpy as np
import pytest

from recorded import SHIPPED, WHOLE, Golden

MAX_BYTES = 1_000_000
FILES = sorted(str(path.relative_to(SHIPPED)) for path in SHIPPED.rglob("*.npz"))


def test_it_is_small_and_has_chips_and_operators() -> None:
    assert 0 < sum(path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file()) <= MAX_BYTES
    assert {name.split("/")[0] for name in FILES} == {"chips", "ops"}


@pytest.mark.skipif(not WHOLE.is_dir(), reason="the whole recording is not here to compare with")
@pytest.mark.parametrize("name", FILES)
def test_arrays_are_those_of_the_whole_recording_or_their_beginning(name: str) -> None:
    part, whole = Golden(SHIPPED).load(name), Golden(WHOLE).load(name)
    for key, array in part.items():
        beginning = whole[key] if array.ndim == 0 else whole[key][: len(array)]
        np.testing.assert_array_equal(array, beginning, err_msg=f"{key}; python tools/make_golden_part.py {WHOLE}")
        assert array.dtype == whole[key].dtype
