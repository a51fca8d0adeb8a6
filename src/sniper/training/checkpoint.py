"""Weights in safetensors with what they are, and the resumable state of a run.

Both are written completely or not at all, and neither is ever unpickled: weights are safetensors, and the state is
read by ``torch.load(weights_only=True)``, which builds tensors and plain values only. Both carry checksums, which are
verified when they are read: a damaged file is refused, and so are weights that are not finite.
"""

import hashlib
import re
import zipfile
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from pydantic import ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sniper.errors import CheckpointError, StorageError
from sniper.files import replacing
from sniper.nn.weights import first_not_finite
from sniper.settings import Config

_HEADER = "sniper"
# The checksum of the rest of the header and of all weights ends the header, where former versions have none. It is no
# entry of its own: safetensors writes several entries in no fixed order, and equal weights are equal files.
_CHECKED = re.compile(r'(?P<meta>\{.*),"sha256":"(?P<sum>[0-9a-f]{64})"\}', re.DOTALL)
_STATE = "sniper training state"
_STATE_FORMAT = 1


def _package_version() -> str:
    try:
        return version("sniper-detection")
    except PackageNotFoundError:
        return "unknown"


class CheckpointMeta(Config):
    """What a file of weights says about itself."""

    # JSON has no infinity and no NaN: a metric of a class without objects is kept as the text "NaN".
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    format: Literal[1] = Field(default=1, description="version of this header")
    sniper: str = Field(default_factory=_package_version, description="version of sniper that wrote it")
    recipe: dict[str, Any] = Field(default_factory=dict, description="resolved recipe of the run")
    class_names: tuple[str, ...] = Field(default=(), description="name of each class index")
    class_ids: tuple[int, ...] = Field(default=(), description="dataset id of each class index")
    step: int = Field(default=0, ge=0, description="updates of the weights done")
    epoch: float = Field(default=0.0, ge=0, description="epochs done")
    metrics: dict[str, float] = Field(default_factory=dict, description="latest evaluation of these weights")
    draw_scores: tuple[float, ...] = Field(
        default=(), description="score of each class index from which on detections are drawn; empty: not evaluated"
    )


class Checkpoint(NamedTuple):
    """Weights by name, on the CPU, and what the file says about them."""

    weights: dict[str, Tensor]
    meta: CheckpointMeta


def save_weights(path: Path | str, state_dict: dict[str, Tensor], metadata: CheckpointMeta) -> None:
    """Write a ``state_dict`` as safetensors, with ``metadata`` as JSON in its header.

    Raises:
        StorageError: the disk is full or the folder cannot be written; the former file stays.
    """
    # Tied weights share memory, which safetensors refuses: each name gets a copy of its own.
    copies = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in state_dict.items()
    }
    header = metadata.model_dump_json()
    with replacing(path) as partial:
        try:
            save_file(copies, partial, metadata={_HEADER: f'{header[:-1]},"sha256":"{_checksum(header, copies)}"}}'})
        except SafetensorError as error:
            raise StorageError(_no_room(path, error)) from error


def load_weights(path: Path | str) -> Checkpoint:
    """Read weights that ``save_weights`` wrote.

    Whether they are finite is checked where they are loaded into a detector, which tells parameters from buffers.

    Raises:
        CheckpointError: the file is missing, empty, cut short, damaged, a pickle, or not written by sniper.
    """
    path = Path(path)
    _require_content(path)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            header = (file.metadata() or {}).get(_HEADER)
            if header is None:
                raise CheckpointError(
                    f"{path} holds safetensors but not a sniper checkpoint (no sniper header); "
                    "pass last.safetensors or best.safetensors of a run"
                )
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if checked := _CHECKED.fullmatch(header):
            header = checked["meta"] + "}"
            if checked["sum"] != _checksum(header, weights):
                raise CheckpointError(f"{path} is damaged (its checksum is another); use another copy")
        return Checkpoint(weights, CheckpointMeta.model_validate_json(header))
    except SafetensorError as error:
        if _is_pickle(path):
            raise CheckpointError(
                f"{path} is a PyTorch pickle, which can run code and is never loaded here; "
                "pass last.safetensors or best.safetensors of a run"
            ) from error
        raise CheckpointError(f"{path} is damaged or not a checkpoint ({_line(error)}); use another copy") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise CheckpointError(
            f"{path} has a header that this sniper ({_package_version()}) cannot read: {place}: {first['msg']}; "
            "use the version that wrote it"
        ) from error


def load_detector_weights(detector: nn.Module, path: Path | str) -> CheckpointMeta:
    """Load a file of weights into ``detector`` in place, every weight or none.

    Raises:
        CheckpointError: the file cannot be read, or its names or shapes are another detector's (the first is named).
    """
    checkpoint = load_weights(path)
    load_into(detector, checkpoint.weights, path)
    return checkpoint.meta


def load_into(detector: nn.Module, weights: dict[str, Tensor], path: Path | str) -> None:
    """Load ``weights`` that came from ``path`` into ``detector`` in place, every one or none.

    Raises:
        CheckpointError: names or shapes are another detector's, or a weight is not finite; the first is named.
    """
    refuse_unsound(path, weights, detector)
    detector.load_state_dict(weights)


def save_state(path: Path | str, state: dict[str, Any]) -> None:
    """Write what resuming needs: tensors and plain values.

    Raises:
        StorageError: the disk is full or the folder cannot be written; the former file stays.
    """
    with replacing(path) as partial, partial.open("wb") as file:
        try:
            torch.save({"kind": _STATE, "format": _STATE_FORMAT, **state}, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # torch hides the full disk behind an error of its own
                raise error.__context__ from error
            raise


def load_state(path: Path | str, detector: nn.Module) -> dict[str, Any]:
    """Read what ``save_state`` wrote, and check that it fits ``detector`` (its weights are under ``model``).

    Raises:
        CheckpointError: the file is missing, damaged, no training state, or for another detector.
    """
    path = Path(path)
    _require_content(path)
    try:
        with zipfile.ZipFile(path) as entries:  # torch writes a checksum of each entry and never looks at it
            damaged = entries.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(f"the checksum of {damaged} is another")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds here; all mean the same to the user
        raise CheckpointError(f"{path} is damaged or not a training state ({_line(error)}); start a new run") from error
    if not isinstance(state, dict) or state.get("kind") != _STATE:
        raise CheckpointError(f"{path} is not a training state of sniper; resume from the state.pt in a run folder")
    if state["format"] != _STATE_FORMAT:
        raise CheckpointError(
            f"{path} has format {state['format']}, this sniper ({_package_version()}) reads {_STATE_FORMAT}; "
            "resume with the version that wrote it"
        )
    refuse_unsound(path, state["model"], detector)
    return state


def refuse_unsound(path: Path | str, weights: dict[str, Tensor], detector: nn.Module) -> None:
    """Let only weights pass that came from ``path`` and that ``detector`` can have.

    Raises:
        CheckpointError: names or shapes are another detector's, or a weight is not finite; the first is named.
    """
    _refuse_mismatch(Path(path), weights, detector.state_dict())
    broken = first_not_finite(detector, weights)
    if broken is not None:
        raise CheckpointError(
            f"{path}: {broken} has a value that is not a finite number; its training diverged: use another checkpoint"
        )


def _checksum(header: str, weights: Mapping[str, Tensor]) -> str:
    """Of all that a file of weights says."""
    digest = hashlib.sha256(header.encode())
    for name in sorted(weights):
        tensor = weights[name]
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _require_content(path: Path) -> None:
    if not path.is_file():
        raise CheckpointError(f"{path} is not a file; pass a checkpoint such as runs/train/NAME/best.safetensors")
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path} is empty; use another copy")


def _is_pickle(path: Path) -> bool:
    """Whether a file that cannot be read is one; safetensors begin with a length of any eight bytes, then ``{``."""
    with path.open("rb") as file:
        start = file.read(9)
    return start[:4] == b"PK\x03\x04" or (start[:1] == b"\x80" and start[8:] != b"{")


def _refuse_mismatch(path: Path, found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, tensor in expected.items():
        if name not in found:
            raise CheckpointError(
                f"{path} has no {name}, which this detector needs; build the detector from the checkpoint's own recipe"
            )
        if found[name].shape != tensor.shape:
            raise CheckpointError(
                f"{path} has {name} of shape {tuple(found[name].shape)}, this detector needs {tuple(tensor.shape)}; "
                "build the detector from the checkpoint's own recipe and classes"
            )
    extra = next((name for name in found if name not in expected), None)
    if extra is not None:
        raise CheckpointError(
            f"{path} has {extra}, which this detector does not; build the detector from the checkpoint's own recipe"
        )


def _no_room(path: Path | str, error: Exception) -> str:
    return f"cannot write {path}: {_line(error)}; free space or choose another folder"


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
