"""A training step never waits for the GPU: shapes do not depend on values, and no value is read back."""

import math

import pytest
import torch
from torch import nn

from sniper.detectors.original.config import OriginalConfig
from sniper.detectors.original.network import build_original
from sniper.detectors.sniper.config import SniperConfig
from sniper.detectors.sniper.network import build_sniper
from sniper.detectors.ssh.config import SshConfig
from sniper.detectors.ssh.network import build_ssh
from sniper.structures import Batch, ObjectState
from sniper.training.config import TrainConfig
from sniper.training.devices import pinned
from sniper.training.optim import build_average, build_optimizer, update_average

NETWORKS = {
    "ssh": lambda: build_ssh(SshConfig(backbone="timm/test_resnet", weights=None, focus=True), 1),
    "sniper": lambda: build_sniper(SniperConfig(backbone="timm/test_resnet", weights=None, focus=True), 3),
    "original": lambda: build_original(OriginalConfig(network="sniper_mobilenetv2"), 3),
    "original, corrected": lambda: build_original(
        OriginalConfig(network="sniper_mobilenetv2", rois={"rule": "ignore"}), 3
    ),
}


def batch_of(objects: int) -> Batch:
    """Two chips of noise, with objects of every state."""
    generator = torch.Generator().manual_seed(objects)
    corner = torch.rand(2, objects, 2, generator=generator) * 100
    boxes = torch.cat((corner, corner + 12 + torch.rand(2, objects, 2, generator=generator) * 60), dim=2)
    state = torch.randint(-1, 3, (2, objects), generator=generator)
    return Batch(
        pixels=torch.randint(0, 255, (2, 3, 192, 192), generator=generator, dtype=torch.uint8),
        valid_hw=torch.tensor([[192, 192], [150, 192]]),
        scale=torch.ones(2),
        boxes=boxes,
        labels=torch.where(state == ObjectState.VALID, 1, -1),
        state=state,
        range_px=torch.tensor([[0.0, 80.0], [32.0, math.inf]]),
        chip_index=torch.arange(2),
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU to wait for")
@pytest.mark.parametrize("network", NETWORKS)
def test_no_wait_in_a_step(network: str) -> None:
    device = torch.device("cuda")
    config = TrainConfig(ema=0.99)
    detector: nn.Module = NETWORKS[network]().to(device).train()
    optimizer, average = build_optimizer(detector, config), build_average(detector, config)
    assert average is not None
    for number, objects in enumerate((5, 0, 5, 40)):
        batch = pinned(batch_of(objects), device)
        if number == 2:  # kernels are chosen and compiled
            torch.cuda.set_sync_debug_mode("error")
        try:
            with torch.autocast("cuda", dtype=torch.bfloat16):
                losses = detector.losses(batch.to(device))
            torch.stack(list(losses.values())).sum().backward()
            nn.utils.clip_grad_norm_(detector.parameters(), 5.0)
            optimizer.step()
            optimizer.zero_grad()
            update_average(average, detector, 0.99, number)
        finally:
            torch.cuda.set_sync_debug_mode("default")
