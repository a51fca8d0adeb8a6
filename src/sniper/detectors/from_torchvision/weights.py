"""Weights of torchvision's detectors: from its own cache, from ours, fetched, or a file; never unpickled."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import get_model_weights

from sniper.detectors.from_torchvision.builders import LIBRARY
from sniper.detectors.from_torchvision.config import TorchvisionConfig
from sniper.detectors.from_torchvision.detector import TorchvisionDetector
from sniper.errors import CheckpointError, DownloadError
from sniper.fetch import Patience, cache_folder, cached, download, resolve
from sniper.fetch.transfer import PATIENCE
from sniper.nn.class_rows import row_of_each, rows_of, with_rows
from sniper.nn.weights import first_not_finite, load_weights, read_weights

logger = logging.getLogger("sniper")


def coco_categories(name: str) -> tuple[str, ...]:
    """What the library's weights of a builder call their labels, from 0: background, and gaps in COCO's numbers."""
    return tuple(get_model_weights(name).DEFAULT.meta["categories"])


def coco_classes(name: str) -> dict[int, str]:
    """The classes of these weights by COCO's numbers, without background and gaps."""
    return {number: one for number, one in enumerate(coco_categories(name)) if number and one != "N/A"}


def library_weights(name: str, patience: Patience = PATIENCE) -> Path:
    """The file of the library's default weights of a network: here already, in either cache, or fetched now.

    Raises:
        CheckpointError: it is not here and cannot be fetched.
    """
    found = cached(LIBRARY + name)
    if found is not None:
        return found
    file = Path(torch.hub.get_dir(), "checkpoints", resolve(LIBRARY + name).place.name)
    if file.is_file():
        return file
    logger.info("fetching the weights of %s%s", LIBRARY, name)
    try:
        return download(LIBRARY + name, patience=patience).path
    except DownloadError as error:
        raise CheckpointError(
            f"the weights of {LIBRARY}{name} are not here and could not be downloaded ({error}); where there is a "
            f"network, 'sniper download {LIBRARY}{name}' puts them into {cache_folder()}, where they are found, as "
            f"they are in {file.parent}"
        ) from error


def load_backbone(body: nn.Module, config: TorchvisionConfig) -> None:
    """Give the body of a backbone the library's ImageNet weights."""
    name = config.builder.backbone
    assert name is not None
    prefix = "" if name.startswith("resnet") else "features."
    load_weights(body, library_weights(name), what=f"the backbone of {config.network}", prefix=prefix)


def load_detector(detector: TorchvisionDetector, path: Path, class_names: Sequence[str]) -> int:
    """Load a state dict of the library's form, with COCO's classes or with the detector's own.

    Rows of COCO's classes go to the classes of the same name; other rows stay as they are.

    Returns:
        How many classes are known to the file.

    Raises:
        CheckpointError: the file cannot be read, or does not fit; the first difference is named.
    """
    assert detector.config is not None
    found, own = read_weights(path), detector.net.state_dict()
    categories = coco_categories(detector.config.name)
    former = categories[detector.first_label :]
    known: set[str] = set(class_names)
    for layer, form in detector.class_layers.items():
        rows = row_of_each(form, class_names, former)
        for name in _parameters(layer, own):
            if name not in found:
                raise CheckpointError(f"{path} has no {name}, expected the state dict of {detector.config.network}")
            if found[name].shape == own[name].shape:
                continue
            if found[name].shape[0] != rows_of(form, len(former)) or found[name].shape[1:] != own[name].shape[1:]:
                raise CheckpointError(
                    f"{path} has {name} of shape {tuple(found[name].shape)}, expected {tuple(own[name].shape)}, or "
                    f"{rows_of(form, len(former))} rows for COCO's classes; use weights of {detector.config.network}"
                )
            found[name], known = with_rows(own[name], found[name], rows), set(class_names) & set(former)
    _load(detector, found, path)
    return len(known)


def _parameters(layer: str, state: dict[str, Tensor]) -> list[str]:
    """The parameters of a layer, as the library's own network names them."""
    own = layer.removeprefix("net.")
    return [name for name in state if name.rpartition(".")[0] == own]


def _load(detector: TorchvisionDetector, found: dict[str, Tensor], path: Path) -> None:
    assert detector.config is not None
    network = detector.config.network
    counters = "num_batches_tracked"  # frozen norms have none
    try:
        result = detector.net.load_state_dict(found, strict=False)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise CheckpointError(f"{path} does not fit {network}: {reason}; use weights of the same network") from error
    wrong = [*(f"no entry {name}" for name in result.missing_keys if not name.endswith(counters)),
             *(f"an entry {name}" for name in result.unexpected_keys if not name.endswith(counters))]  # fmt: skip
    if wrong:
        raise CheckpointError(f"{path} does not fit {network}: it has {wrong[0]}; use weights of the same network")
    broken = first_not_finite(detector.net, detector.net.state_dict())
    if broken is not None:
        raise CheckpointError(f"{path}: {broken} has a value that is not a finite number; use another copy")
