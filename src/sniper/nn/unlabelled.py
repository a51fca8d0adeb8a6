"""Objects without labels: how much background may teach where annotations are not complete.

``docs/method.md``, "Objects without labels". Nothing here learns or draws anything.
"""

import torch
from torch import Tensor


def background_weight(overlap: Tensor, floor: float) -> Tensor:
    """(...,) weights of background regions in the class loss, ``floor`` to 1 (soft sampling, arXiv 1806.06986).

    Near an annotated object somebody has looked, so background there is background. Far from all of them it may be an
    object that nobody marked. The weight is the paper's Gompertz curve of ``overlap``, the largest IoU with any
    annotated object: ``floor`` at 0, half-way at 0.21, 1 from about 0.4 on.
    """
    return floor + (1 - floor) * torch.exp(-50 * torch.exp(-20 * overlap))


def without_unknown(logits: Tensor, labels: Tensor, known: Tensor) -> Tensor:
    """(K, C + 1) logits in which background is not told apart from classes that nobody looked for.

    Such a class gets no probability in a region without an object, so that the loss neither lowers nor raises it.
    Regions with an object keep all classes: they show that object, and so none of the others.

    Args:
        logits: (K, C + 1), background first.
        labels: (K,) 0 for background, class index + 1, or -1.
        known: (K, C) classes that the region's image was checked for.
    """
    unknown = torch.cat((torch.zeros_like(known[:, :1]), ~known), dim=1)
    return logits.masked_fill(unknown & (labels <= 0).unsqueeze(1), -torch.inf)
