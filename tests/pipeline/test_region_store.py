"""Described regions on disk: found again, never stale, bounded."""

import os
from pathlib import Path

import numpy as np

from sniper.pipeline.region_store import RegionStore, store_key


def test_a_key_is_of_the_photo_the_networks_and_the_settings() -> None:
    keys = {
        store_key("a", ("n",), {"x": 1}),
        store_key("b", ("n",), {"x": 1}),
        store_key("a", ("m",), {"x": 1}),
        store_key("a", ("n",), {"x": 2}),
    }
    assert len(keys) == 4
    assert store_key("a", ("n",), {"x": 1, "y": 2}) == store_key("a", ("n",), {"y": 2, "x": 1})


def test_columns_come_back_and_damaged_ones_do_not(tmp_path: Path) -> None:
    store = RegionStore(tmp_path)
    assert store.get("aa11") is None
    store.put("aa11", {"boxes": np.arange(8.0).reshape(2, 4)})
    found = store.get("aa11")
    assert found is not None
    assert np.array_equal(found["boxes"], np.arange(8.0).reshape(2, 4))
    file = next(tmp_path.rglob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:20])
    assert store.get("aa11") is None


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    store = RegionStore(tmp_path, max_bytes=2500)
    for number in range(4):
        store.put(f"{number}{number}aa", {"features": np.zeros(250, np.float32)})
        os.utime(store._path(f"{number}{number}aa"), (number, number))
    store.get("00aa")  # used now
    assert store.trim() == 2
    assert [store.get(f"{number}{number}aa") is not None for number in range(4)] == [True, False, False, True]
    assert store.trim() == 0


def test_a_folder_that_cannot_be_written_keeps_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = RegionStore(tmp_path / "file")
    store.put("aa", {"x": np.zeros(1)})
    assert store.get("aa") is None
    assert store.trim() == 0
