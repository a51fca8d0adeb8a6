"""A query-based detector of the library: a batch of padded inputs in, losses or detections out.

The library's image processors resize every image to one size. Chips and windows come at the right scale, so they go
into the network as they are: padded at the right and at the bottom, boxes as shares of the whole.
"""

from typing import Any

import torch
from torch import Tensor, nn

from sniper.detectors.from_transformers.config import TransformersConfig
from sniper.detectors.from_transformers.geometry import InputSizes
from sniper.detectors.from_transformers.losses import named_losses
from sniper.detectors.from_transformers.targets import IgnoreRule, corners, targets_of
from sniper.detectors.from_transformers.tracing import batch_left_free
from sniper.detectors.one_pass import OnePass, Proposes
from sniper.detectors.protocol import FixedOutputs, Outputs
from sniper.errors import RecipeError
from sniper.nn import box_deltas
from sniper.nn.class_rows import ClassRows, RowsOf
from sniper.nn.evaluating import evaluating
from sniper.nn.sampling import gather_boxes
from sniper.structures import Batch, Detections, Images

# Types whose graphs hold for every batch and size, as transformers 5.24 and torch 2.14 trace them ...
EXPORTED = ("detr", "table-transformer", "yolos")
# ... and those whose anchors, position embeddings and sizes of maps are constants of the size at which they are traced.
EXPORTED_AT_ONE_SIZE = ("rt_detr", "rt_detr_v2", "d_fine", "deimv2", "lw_detr", "rf_detr")
# Parts of the library's networks whose last layer has a row for each class.
CLASS_PARTS = {
    "class_embed", "class_labels_classifier", "enc_score_head", "denoising_class_embed", "enc_out_class_embed",
}  # fmt: skip


class TransformersDetector(Proposes, OnePass):
    """A network of ``AutoModelForObjectDetection`` that detects, proposes, learns from chips and can be exported.

    Its weights are named ``net...``. Built by ``build.from_transformers``, which gives the network its loss.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, net: Any, config: TransformersConfig, sizes: InputSizes, *, softmax: bool) -> None:
        super().__init__()
        self.net, self.config, self.sizes, self.softmax = net, config, sizes, softmax
        self.focus = None
        self.rule = IgnoreRule(config.ignore_iou, config.crowd_share)
        self.register_buffer("mean", torch.tensor(config.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config.std).view(3, 1, 1), persistent=False)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The library's losses under its names, each summed over layers and groups, with its weight.

        Denoising and dropout draw from the default generators. The library's matching runs on the host, which waits
        for a GPU in every decoder layer.
        """
        pixels = self.normalise(batch)
        targets = targets_of(batch, (pixels.shape[2], pixels.shape[3]), self.rule)
        return named_losses(self.net(pixel_values=pixels, labels=targets).loss_dict, self.net.config)

    @torch.no_grad()
    def outputs(
        self,
        images: Images,
        *,
        detections: bool = True,
        proposals: bool = False,
        focus: bool = False,
        features: bool = False,
    ) -> Outputs:
        """Detections and proposals from one forward pass; there is neither a focus branch nor masks."""
        with evaluating(self):
            found = self.fixed_outputs(images)
        assert found.proposal_boxes is not None
        assert found.proposal_scores is not None
        assert found.proposal_counts is not None
        kept = torch.stack((found.counts, found.proposal_counts)).tolist()
        return Outputs(
            _rows(found.boxes, found.scores, found.labels, kept[0]) if detections else None,
            _rows(found.proposal_boxes, found.proposal_scores, None, kept[1]) if proposals else None,
        )

    def fixed_outputs(self, images: Images) -> FixedOutputs:
        """The best ``max_detections`` of all classes of all queries, and the queries by their best class as proposals.

        Queries do not repeat each other, so nothing is suppressed: levels and windows are merged outside.
        """
        self._require_exportable(images)
        pixels = self.normalise(images)
        with batch_left_free(self.net):
            found = self.net(pixel_values=pixels)
        logits, boxes = found.logits.float(), corners(found.pred_boxes.float())
        size = torch.tensor([pixels.shape[3], pixels.shape[2]] * 2, device=boxes.device)
        boxes = box_deltas.clip(boxes * size, images.valid_hw)
        empty = (boxes[..., 2:] <= boxes[..., :2]).any(dim=-1, keepdim=True)  # all over padding
        scores = (logits.softmax(dim=-1)[..., :-1] if self.softmax else logits.sigmoid()).masked_fill(empty, 0)
        queries, classes = scores.shape[1], scores.shape[2]
        best, index = scores.flatten(1).topk(min(self.config.max_detections, queries * classes), dim=1)
        is_found = best > self.config.score_threshold
        objectness, order = scores.amax(dim=2).sort(dim=1, descending=True)
        proposed = objectness > 0
        return FixedOutputs(
            boxes=gather_boxes(boxes, index // classes).masked_fill(~is_found.unsqueeze(-1), 0),
            scores=best.masked_fill(~is_found, 0),
            labels=(index % classes).masked_fill(~is_found, 0),
            counts=is_found.sum(dim=1),
            proposal_boxes=gather_boxes(boxes, order).masked_fill(~proposed.unsqueeze(-1), 0),
            proposal_scores=objectness,
            proposal_counts=proposed.sum(dim=1),
        )

    @property
    def exports_one_size(self) -> bool:
        """Whether its graph is right for the size alone at which it is traced, for any batch."""
        return self.net.config.model_type in EXPORTED_AT_ONE_SIZE

    def _require_exportable(self, images: Images) -> None:
        """Refuse to be traced where the graph would be right for the sizes of the example alone, or wrong.

        Raises:
            RecipeError: it is being exported, and is of a type that cannot be, or not for free sizes.
        """
        kind = self.net.config.model_type
        if not torch.compiler.is_exporting() or kind in EXPORTED:
            return
        if not self.exports_one_size:
            raise RecipeError(
                f"{self.config.network} ({kind}) cannot be written as ONNX: what torch makes of the library's network "
                f"is no valid graph or fixes its batch; of these detectors "
                f"{', '.join((*EXPORTED, *EXPORTED_AT_ONE_SIZE))} can"
            )
        if not all(isinstance(side, int) for side in images.pixels.shape[2:]):
            raise RecipeError(f"{self.config.network} ({kind}) can be written as ONNX for one size of input alone")

    def half_precision(self) -> None:
        """Parameters of the network in half precision, boxes and scores in single."""
        self.net.half()

    @property
    def stride(self) -> int:
        """Network px per cell of the one map, or of the middle one: four such cells are seen well."""
        return self.config.stride

    @property
    def class_layers(self) -> dict[str, ClassRows]:
        """What depends on the classes, for fine-tuning; some layers have a last row for no object."""
        classes = self.net.config.num_labels
        rows: dict[str, ClassRows] = {}
        stacks: dict[str, str] = {}  # of several layers the last one gives the classes
        for name, module in self.net.named_modules():
            count = module.weight.shape[0] if isinstance(module, nn.Linear | nn.Embedding) else -1
            if count not in (classes, classes + 1) or CLASS_PARTS.isdisjoint(name.split(".")):
                continue
            stack = name.rpartition(".layers.")[0] or name
            rows.pop(stacks.get(stack, ""), None)
            stacks[stack] = f"net.{name}"
            rows[f"net.{name}"] = RowsOf(no_object=count == classes + 1)
        return rows

    def normalise(self, images: Images) -> Tensor:
        """(B, 3, H, W) pixels for the network; padding is 0, as in the library's training."""
        return images.normalised(self.mean, self.std, self.sizes.padded_hw(*images.pixels.shape[2:]))


def _rows(boxes: Tensor, scores: Tensor, labels: Tensor | None, counts: list[int]) -> list[Detections]:
    """What counts of each input; without ``labels`` all are 0."""
    labels = torch.zeros_like(scores, dtype=torch.int64) if labels is None else labels
    return [Detections(boxes[k, :n], scores[k, :n], labels[k, :n]) for k, n in enumerate(counts)]
