"""Devices: what is compiled, what is page-locked, how much memory a run took."""

from types import SimpleNamespace

import pytest
import torch
from tiny import make_batch
from torch import nn
from torch._dynamo.utils import counters

from devices import DEVICE
from sniper.structures import Batch
from sniper.training import memory
from sniper.training.devices import compiled_parts, pinned


def test_every_part_is_compiled_however_many_were_before_it() -> None:
    """torch gives up on a code object after eight compilations, and all modules share one."""
    for number in range(6):
        detector = nn.Sequential(*(nn.Sequential(*[nn.Linear(2, 2)] * (2 * number + part + 1)) for part in range(2)))
        counters.clear()
        # The graphs are what counts here, not the code made of them, which takes seconds each.
        with torch.compiler.set_stance("default", force_backend="eager"), compiled_parts(detector, True):
            detector(torch.rand(3, 2))
        assert counters["stats"]["unique_graphs"] == 2, f"{dict(counters)}"
        assert all(part._compiled_call_impl is None for part in detector)


class _Counting(Batch):
    pins = 0

    def pin_memory(self) -> "_Counting":
        _Counting.pins += 1
        return self


@pytest.mark.parametrize(("device", "pins"), [("cpu", 0), ("mps", 0), ("cuda", 1), ("cuda:1", 1)])
def test_batches_are_page_locked_for_cuda_alone(device: str, pins: int) -> None:
    batch = make_batch((1,))
    counting = _Counting(**{name: getattr(batch, name) for name in Batch.__dataclass_fields__})
    _Counting.pins = 0
    assert pinned(counting, torch.device(device)) is counting
    assert _Counting.pins == pins


def test_page_locked_batches_are_the_same_batches() -> None:
    batch, device = make_batch((1,)), torch.device(DEVICE)
    moved = pinned(batch, device)
    assert moved.pixels.is_pinned() == (device.type == "cuda")
    assert torch.equal(moved.pixels, batch.pixels)
    assert torch.equal(moved.boxes, batch.boxes)


def test_peak_memory_is_known_on_every_system(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = memory.peak_memory_mb()
    monkeypatch.setattr(memory, "resource", None)
    resident = memory.peak_memory_mb()
    assert 50 < resident <= 1.05 * usual
    on_windows = SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=2**20, peak_wset=300 * 2**20))
    monkeypatch.setattr(memory.psutil, "Process", lambda: on_windows)
    assert memory.peak_memory_mb() == 300
