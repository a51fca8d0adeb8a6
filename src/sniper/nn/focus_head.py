"""A small focus branch on a feature map: one map of how likely a cell shows a small object (``nn.focus``)."""

from torch import Tensor, nn

from sniper.nn.config import FocusConfig
from sniper.nn.focus import focus_labels, focus_logits, focus_loss
from sniper.nn.focus_recall import FocusRecall
from sniper.nn.initial import initialise
from sniper.structures import Batch


class FocusHead(nn.Module):
    """3x3 convolution, 1x1 convolution, one logit a cell; the 2018 branch is 256 features wide and has two logits."""

    def __init__(self, in_channels: int, *, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(in_channels, channels, 3, padding=1), nn.Conv2d(channels, channels, 1)
        self.logits = nn.Conv2d(channels, 1, 1)
        self.relu = nn.ReLU()
        self.recall = FocusRecall()
        for layer in (self.conv1, self.conv2, self.logits):
            initialise(layer, std=0.01)

    def forward(self, features: Tensor) -> Tensor:
        """(B, 1, H, W) logits of (B, F, H, W) ``features``."""
        logits: Tensor = self.logits(self.relu(self.conv2(self.relu(self.conv1(features)))))
        return logits


def focus_loss_of(logits: Tensor, batch: Batch, stride: int, config: FocusConfig, recall: FocusRecall) -> Tensor:
    """The loss of (B, 1 or 2, H, W) ``logits`` for the objects of a batch, whatever their level learns of them.

    ``recall`` counts how many of their cells were among the best.
    """
    labels = focus_labels(batch.boxes, batch.state, stride, (logits.shape[2], logits.shape[3]), config, batch.valid_hw)
    recall.add(logits, labels, batch.valid_hw, stride)
    return focus_loss(logits, labels, config.loss)


def focus_probability(logits: Tensor) -> Tensor:
    """(B, H, W) probability that a cell shows a small object."""
    return focus_logits(logits).float().sigmoid()
