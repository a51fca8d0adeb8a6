"""A focus branch for any detector that computes a feature map: ``docs/method.md``, "AutoFocus"."""

import difflib
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

from sniper.detectors.protocol import (
    Detector,
    FocusDetector,
    MaskDetector,
    MultiOutput,
    Outputs,
    ProposalTrainer,
    Proposer,
    ReportsMetrics,
)
from sniper.errors import RecipeError
from sniper.nn.class_rows import ClassRows
from sniper.nn.config import FocusConfig
from sniper.nn.evaluating import evaluating
from sniper.nn.focus_head import FocusHead, focus_loss_of, focus_probability
from sniper.structures import Batch, Detections, Images

PROBE_HW = 128, 192  # grey padded input that tells stride and features of a layer, px
PADDING_PX = 64  # a detector may pad its padded input at the right and the bottom by less than this


def with_focus(
    detector: nn.Module, layer: str, *, channels: int = 64, labels: FocusConfig | None = None
) -> "WithFocus":
    """``detector`` with a focus branch on the map that its submodule ``layer`` gives, say ``net.backbone.body.layer3``.

    The detector looks once at a grey padded input, which tells stride and features of the layer. Its weights are
    shared with the result, not copied; those of the branch are random, drawn from torch's default generator.

    Args:
        detector: anything that satisfies ``detectors.protocol.Detector`` and takes padded inputs at their size.
        layer: dotted name of a submodule that runs once a look and gives one map (B, F, H, W).
        channels: features of the branch.
        labels: which objects deserve a closer look; none: the defaults.

    Raises:
        RecipeError: there is no such layer, what it gives is no map of the padded input, or there is a focus branch
            already.
    """
    if not isinstance(detector, Detector):
        raise RecipeError(f"{type(detector).__name__} is no detector: it needs the methods losses and detect")
    if isinstance(detector, FocusDetector) and detector.focus_stride is not None:
        raise RecipeError(f"{type(detector).__name__} has a focus branch already; use it as it is")
    height, width = PROBE_HW
    device = next((weight.device for weight in detector.parameters()), torch.device("cpu"))
    padded = Images(
        torch.full((1, 3, height, width), 0.5, device=device),
        torch.tensor([[height, width]], device=device),
        torch.ones(1, device=device),
    )
    with torch.no_grad(), evaluating(detector), listening(detector, layer) as heard:
        detector.detect(padded)
    features = _one_map(heard, layer, 1)
    rows, columns = features.shape[2:]
    stride = height // rows
    if stride * rows != height or math.ceil(width / stride) != columns:
        raise RecipeError(_other_size(layer, features, PROBE_HW, "as many px a cell both ways"))
    head = FocusHead(features.shape[1], channels=channels).to(device)
    return WithFocus(detector, layer, head, stride, labels or FocusConfig())


class WithFocus(nn.Module):
    """A detector whose layer also feeds a focus branch: one more loss, ``focus``, and it is a ``FocusDetector``.

    It proposes regions, trains its proposals alone and predicts masks if ``detector`` does. Weights are named
    ``detector...`` and ``focus...``; a checkpoint of the detector alone is for the detector, before it gets the branch.
    """

    def __init__(self, detector: nn.Module, layer: str, focus: FocusHead, stride: int, labels: FocusConfig) -> None:
        super().__init__()
        self.detector, self.focus = detector, focus
        self.layer, self.labels = layer, labels
        self._stride = stride
        detector.get_submodule(layer).register_forward_hook(_hear)
        inner: Mapping[str, ClassRows] = getattr(detector, "class_layers", {})
        self.class_layers = {f"detector.{name}": rows for name, rows in inner.items()}
        # In the object, not in the class: what the detector cannot do, this must not seem to.
        for trait in ("stride", "comfortable_px"):
            if hasattr(detector, trait):
                setattr(self, trait, getattr(detector, trait))
        if isinstance(detector, Proposer):
            self.propose = detector.propose
        if isinstance(detector, ProposalTrainer):
            self.proposal_losses = detector.proposal_losses
        if isinstance(detector, MaskDetector):
            self.predicts_masks = detector.predicts_masks
            self.predict_masks = detector.predict_masks

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Those of the detector and ``focus``.

        Raises:
            RecipeError: the layer gave no map of the padded input, or the detector has a loss of that name.
        """
        with listening(self.detector, self.layer) as heard:
            losses: dict[str, Tensor] = self.detector.losses(batch)  # type: ignore[operator]
        if "focus" in losses:
            raise RecipeError(f"{type(self.detector).__name__} has a loss named focus already; give it another name")
        logits = self.focus(self._features(heard, batch))
        return losses | {"focus": focus_loss_of(logits, batch, self._stride, self.labels, self.focus.recall)}

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The losses, so that wrappers which hook into ``forward`` work."""
        return self.losses(batch)

    def detect(self, images: Images) -> list[Detections]:
        """What the detector finds."""
        found: list[Detections] = self.detector.detect(images)  # type: ignore[operator]
        return found

    @property
    def focus_stride(self) -> int | None:
        """Network px per cell of the focus map."""
        return self._stride

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
        """What the detector says, and (B, h, w) focus probabilities, from one forward pass."""
        with listening(self.detector, self.layer) as heard:
            if isinstance(self.detector, MultiOutput):
                inner = self.detector.outputs(images, detections=detections, proposals=proposals, features=features)
            elif proposals and not detections and isinstance(self.detector, Proposer):
                inner = Outputs(proposals=self.detector.propose(images))
            else:
                inner = Outputs(self.detect(images))
        return inner._replace(focus=focus_probability(self.focus(self._features(heard, images)))) if focus else inner

    def training_metrics(self) -> dict[str, Tensor]:
        """``focus_recall_at_10`` since the last call, and what the detector itself measures."""
        inner = self.detector.training_metrics() if isinstance(self.detector, ReportsMetrics) else {}
        return inner | self.focus.recall.metrics()

    def _features(self, heard: list[object], images: Images) -> Tensor:
        """(B, F, H, W): the map that was heard, one cell for each ``focus_stride`` px of the padded input."""
        features = _one_map(heard, self.layer, len(images))
        height, width = images.pixels.shape[2:]
        rows, columns = math.ceil(height / self._stride), math.ceil(width / self._stride)
        more = features.shape[2] - rows, features.shape[3] - columns
        if min(more) < 0 or max(more) * self._stride >= PADDING_PX:
            expected = f"{rows} x {columns} at {self._stride} px a cell"
            raise RecipeError(_other_size(self.layer, features, (height, width), expected))
        return features[:, :, :rows, :columns]


# What the layers of this thread's forward pass have given; None while nobody listens.
_HEARD: ContextVar[list[tuple[nn.Module, object]] | None] = ContextVar("heard", default=None)


def _hear(module: nn.Module, given: object, output: object) -> None:
    """The hook of a layer, there for good: one that came and went would be seen by every thread of the network.

    It also tells ``nn.folding`` to leave the layer as it is: the branch learned from that.
    """
    heard = _HEARD.get()
    if heard is not None:
        heard.append((module, output))


@contextmanager
def listening(detector: nn.Module, layer: str) -> Iterator[list[object]]:
    """While entered, notes all that ``layer`` gives in this thread; the list is filled at the end.

    Raises:
        RecipeError: there is no such layer.
    """
    wanted = _layer(detector, layer)
    hook = None if _hear in wanted._forward_hooks.values() else wanted.register_forward_hook(_hear)
    every: list[tuple[nn.Module, object]] = []
    heard: list[object] = []
    token = _HEARD.set(every)
    try:
        yield heard
    finally:
        _HEARD.reset(token)
        heard += [output for module, output in every if module is wanted]
        if hook is not None:
            hook.remove()


def _layer(detector: nn.Module, layer: str) -> nn.Module:
    try:
        if layer:
            return detector.get_submodule(layer)
    except AttributeError:
        pass
    layers = [name for name, _ in detector.named_modules() if name]
    near = difflib.get_close_matches(layer, layers, n=1, cutoff=0.5) or layers[:1]
    hint = f"; it has {near[0]}, for instance" if near else ""
    raise RecipeError(f"{type(detector).__name__} has no layer {layer!r}{hint}")


def _one_map(heard: list[object], layer: str, images: int) -> Tensor:
    """(B, F, H, W) of the ``images`` padded inputs; a detector may have run on them one by one."""
    maps = [one for one in heard if isinstance(one, Tensor) and one.ndim == 4]
    shapes = {one.shape[1:] for one in maps}
    if len(maps) == len(heard) and len(shapes) == 1 and sum(map(len, maps)) == images:
        return maps[0] if len(maps) == 1 else torch.cat(maps)
    if not heard:
        got = "it did not run"
    elif len(heard) > 1:
        got = f"it ran {len(heard)} times"
    else:
        got = f"it gave {_kind(heard[0])}"
    raise RecipeError(f"layer {layer!r} should give one map (B, F, H, W) of each batch, but {got}; name another layer")


def _kind(given: object) -> str:
    return f"a tensor {tuple(given.shape)}" if isinstance(given, Tensor) else f"a {type(given).__name__}"


def _other_size(layer: str, features: Tensor, padded_hw: tuple[int, int], expected: str) -> str:
    rows, columns = features.shape[2:]
    height, width = padded_hw
    return (
        f"layer {layer!r} gives {rows} x {columns} cells of a padded input of {height} x {width} px, expected "
        f"{expected}; the detector must not resize its input (torchvision's do: transform.resize = lambda image, "
        "target: (image, target) stops them)"
    )
