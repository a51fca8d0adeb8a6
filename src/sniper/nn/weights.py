"""Reading weight files into a network: tensors only, never pickled code."""

from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from sniper.errors import CheckpointError
from sniper.fetch import cached
from sniper.fetch.shipped import shipped_hint


def first_not_finite(module: nn.Module, state: Mapping[str, Tensor]) -> str | None:
    """The name of an entry of a ``state_dict`` of ``module`` that holds NaN, or a parameter that holds infinity.

    None where all are sound. A buffer may mean infinity: an open range, a mask. On a GPU it waits for the device once.
    """
    parameters = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    names = [name for name, value in state.items() if value.is_floating_point()]
    sound = [
        (state[name].isfinite() if name in parameters else ~state[name].isnan()).all().reshape(1) for name in names
    ]
    told = torch.cat(sound).tolist() if sound else []
    return next((name for name, fine in zip(names, told, strict=True) if not fine), None)


def read_weights(path: Path | str) -> dict[str, Tensor]:
    """Tensors of a ``.safetensors`` file or of a PyTorch state dict, half precision cast up to float32.

    In place of a path, a name that ``sniper download`` has fetched.

    Raises:
        CheckpointError: the file is missing, damaged, or holds anything but named tensors.
    """
    path = Path(path)
    if not path.exists():
        path = cached(path) or path  # the name of what was downloaded
    try:
        content = (
            safetensors.torch.load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except OSError as error:
        raise CheckpointError(
            f"cannot read the weights {path}: {error.strerror or error}; "
            "set model.weights to a file, to a name that 'sniper download NAME' has fetched, or to null; "
            f"{shipped_hint()}"
        ) from error
    except Exception as error:  # a damaged file can fail anywhere inside the two libraries
        reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path} is not a readable weight file ({reason[:120]}); "
            "expected .safetensors or a PyTorch state dict of plain tensors"
        ) from error
    for wrapper in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not content or not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(
            f"{path} holds no named tensors; expected the state dict of an image classification network"
        )
    return {name: value.float() if value.is_floating_point() else value for name, value in content.items()}


def load_weights(network: nn.Module, path: Path | str, *, what: str, prefix: str = "") -> None:
    """Copy a weight file into ``network``; entries that it does not have (a classifier, say) are passed over.

    ``prefix`` stands before the network's names in the file. Names match with ``.`` and ``_`` alike, since timm renames
    layers when it cuts a network open.

    Raises:
        CheckpointError: the file cannot be read, lacks an entry, or has one of another shape or one that is not finite;
            the first is named.
    """
    found = {name.replace(".", "_"): value for name, value in read_weights(path).items()}
    matched = {}
    for name, own in network.state_dict().items():
        wanted = prefix + name
        value = found.get(wanted.replace(".", "_"))
        if value is None and name.endswith("num_batches_tracked"):
            value = own
        if value is None:
            raise CheckpointError(
                f"{path} does not fit {what}: it has no entry {wanted}; use weights of the same network"
            )
        if value.shape != own.shape:
            raise CheckpointError(
                f"{path} does not fit {what}: {wanted} has shape {tuple(value.shape)}, not {tuple(own.shape)}; "
                "use weights of the same network"
            )
        matched[name] = value
    broken = first_not_finite(network, matched)
    if broken is not None:
        raise CheckpointError(f"{path}: {prefix}{broken} has a value that is not a finite number; use another copy")
    network.load_state_dict(matched)
