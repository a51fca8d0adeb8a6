"""One ONNX file in onnxruntime, an extra that only this module imports."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sniper.errors import CheckpointError, RecipeError


class Port(NamedTuple):
    """An input or output of the file."""

    name: str
    shape: tuple[int | None, ...]  # None where the file leaves it open
    type: str  # such as tensor(float)


class Session:
    """A loaded file. ``run`` is re-entrant."""

    def __init__(self, path: Path, device: str = "auto") -> None:
        """Load ``path``; as many threads as OMP_NUM_THREADS says compute, else one for each core.

        ``device`` is ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.

        Raises:
            CheckpointError: the file is not there, or no ONNX file that this onnxruntime can run.
            RecipeError: onnxruntime is not installed, or has not this device.
        """
        runtime = _onnxruntime(path)
        if not path.is_file():
            raise CheckpointError(f"{path}: no such file; give an ONNX file")
        self.path, self.device = path, _device(device, runtime.get_available_providers())
        options = runtime.SessionOptions()
        options.intra_op_num_threads = _threads()
        # Threads that spin while they wait starve decoding and merging.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self._session = runtime.InferenceSession(str(path), options, providers=_providers(self.device))
        except Exception as error:  # its own kinds of errors have no common base but Exception
            raise CheckpointError(
                f"{path} is damaged, or no ONNX file that onnxruntime {runtime.__version__} runs ({_line(error)}); use "
                "another copy"
            ) from error
        self.inputs = tuple(map(_port, self._session.get_inputs()))
        self.outputs = tuple(map(_port, self._session.get_outputs()))
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)

    def run(self, names: list[str], feeds: dict[str, NDArray]) -> list[NDArray]:
        """The outputs of these names.

        Raises:
            CheckpointError: the graph cannot run on these inputs.
        """
        try:
            found: list[NDArray] = self._session.run(names, feeds)
        except Exception as error:  # see above
            shapes = ", ".join(f"{name} {value.dtype}{list(value.shape)}" for name, value in feeds.items())
            raise CheckpointError(
                f"{self.path} does not run on {shapes} ({_line(error)}); if it comes from elsewhere, correct the input "
                "of its form"
            ) from error
        return found


def _onnxruntime(path: Path) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise RecipeError(
            f"{path} needs onnxruntime, which is not here ({error}); pip install 'sniper-detection[onnx]'"
        ) from error
    return onnxruntime


def _threads() -> int:
    """0 leaves it to onnxruntime."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    return int(told) if told.isdecimal() else 0


def _device(wanted: str, providers: list[str]) -> str:
    has_cuda = "CUDAExecutionProvider" in providers
    if wanted == "auto":
        return "cuda" if has_cuda else "cpu"
    if wanted == "cpu" or (has_cuda and wanted.partition(":")[0] == "cuda"):
        return wanted
    raise RecipeError(
        f"device {wanted!r} cannot be used for an ONNX file here: onnxruntime has {', '.join(providers)}; choose auto "
        "or cpu, or install onnxruntime-gpu"
    )


def _providers(device: str) -> list[Any]:
    kind, _, number = device.partition(":")
    cuda = [("CUDAExecutionProvider", {"device_id": number or "0"})] if kind == "cuda" else []
    return [*cuda, "CPUExecutionProvider"]


def _port(found: Any) -> Port:
    shape = tuple(side if isinstance(side, int) else None for side in found.shape)
    return Port(found.name, shape, found.type)


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text[:200].rstrip(". ") or type(error).__name__


def counted(columns: list[NDArray], counts: NDArray[np.integer]) -> list[NDArray]:
    """The first ``counts`` (B,) slots of (B, D, ...) columns, one padded input after the other."""
    there = np.arange(columns[0].shape[1]) < counts[:, None]
    return [column[there] for column in columns]
