"""Files of the library's models: a folder, our cache, the library's own, or fetched; safetensors alone are read."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sniper.detectors.from_transformers.models import (
    CONFIG_FILE,
    PREFIX,
    PROCESSOR_FILE,
    WEIGHTS_FILE,
    is_model_folder,
    optional_file,
    read_config,
    required_files,
)
from sniper.errors import CheckpointError, DownloadError
from sniper.fetch import Patience, cache_folder, cached, download
from sniper.fetch.transfer import PATIENCE
from sniper.nn.class_rows import ClassRows, row_of_each, rows_of, with_rows
from sniper.nn.weights import first_not_finite

logger = logging.getLogger("sniper")


def model_folder(name: str, patience: Patience = PATIENCE) -> Path:
    """The folder with the configuration and the weights of a model: here already, in either cache, or fetched now.

    Raises:
        CheckpointError: it is not here and cannot be fetched, or has no safetensors.
    """
    if Path(name).is_dir():
        return _complete(Path(name))
    for found in (_in_own_cache(name), _in_library_cache(name)):
        if found is not None:
            return found
    return fetch(name, patience)


def fetch(name: str, patience: Patience = PATIENCE) -> Path:
    """Fetch a model's files into our cache.

    Raises:
        CheckpointError: they cannot be fetched.
    """
    logger.info("fetching the weights of %s%s", PREFIX, name)
    try:
        config, _ = (download(file, patience=patience).path for file in required_files(PREFIX + name))
    except DownloadError as error:
        raise CheckpointError(
            f"the weights of {PREFIX}{name} are not here and could not be downloaded ({error}); where there is a "
            f"network, 'sniper download {PREFIX}{name}' puts them into {cache_folder()}, where they are found, as they "
            "are in the library's own cache; a folder with "
            f"{CONFIG_FILE} and {WEIGHTS_FILE} works too"
        ) from error
    try:
        download(optional_file(PREFIX + name), patience=patience)
    except DownloadError as error:
        logger.info("%s%s has no %s (%s)", PREFIX, name, PROCESSOR_FILE, error)
    return config.parent


def colours_of(folder: Path) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and deviation that a model's image processor normalises RGB with; None: it does not tell."""
    file = folder / PROCESSOR_FILE
    found = read_config(file) if file.is_file() else {}
    if not found.get("do_normalize", bool(found)):
        return ((0.0,) * 3, (1.0,) * 3) if found else None
    if "image_mean" not in found or "image_std" not in found:
        return None
    return tuple(map(float, found["image_mean"])), tuple(map(float, found["image_std"]))


def names_of(config: dict[str, Any]) -> tuple[str, ...]:
    """What a configuration calls its classes, in their order; a gap has the name that it has there."""
    names = config.get("id2label") or {}
    return tuple(str(names[number]) for number in sorted(names, key=int))


def load_library_weights(
    net: Any, folder: Path, rows: dict[str, ClassRows], class_names: Sequence[str], former: Sequence[str]
) -> int:
    """Load the weights of ``folder`` into ``net`` in place, as the library reads them: it renames some of old.

    Args:
        net: a network of the library for ``class_names``.
        folder: with its configuration and weights, for the classes ``former``.
        rows: the layers that depend on the classes, by their names in ``net``.
        class_names: those of ``net``; rows of the same name are taken over, others stay as they are.
        former: those of the weights.

    Returns:
        How many classes are known to the weights.

    Raises:
        CheckpointError: the file cannot be read, or does not fit; the first difference is named.
    """
    found = _read(net, folder)
    state: dict[str, Tensor] = {}
    for name, own in net.state_dict().items():
        layer = rows.get(name.rpartition(".")[0])
        if name not in found:
            raise CheckpointError(
                f"{folder / WEIGHTS_FILE} has no {name}; take back what model.architecture changes, or set "
                "model.weights to null"
            )
        if own.shape == found[name].shape and (layer is None or list(class_names) == list(former)):
            state[name] = found[name]
        elif layer is not None and found[name].shape == (rows_of(layer, len(former)), *own.shape[1:]):
            state[name] = with_rows(own, found[name], row_of_each(layer, class_names, former))
        else:
            raise CheckpointError(
                f"{folder / WEIGHTS_FILE} has {name} of shape {tuple(found[name].shape)}, expected {tuple(own.shape)}; "
                "take back what model.architecture changes, or set model.weights to null"
            )
    broken = first_not_finite(net, state)
    if broken is not None:
        raise CheckpointError(
            f"{folder / WEIGHTS_FILE}: {broken} has a value that is not a finite number; use another copy"
        )
    net.load_state_dict(state)
    return len(set(class_names) & set(former))


def _read(net: Any, folder: Path) -> dict[str, Tensor]:
    """The weights of a folder by their present names, in the network that its configuration describes."""
    file = folder / WEIGHTS_FILE
    _require_tensors(file)
    config = type(net.config).from_dict(read_config(folder / CONFIG_FILE))
    config.id2label = dict(enumerate(names_of(read_config(folder / CONFIG_FILE)))) or config.id2label
    try:
        with _quiet():
            read, info = type(net).from_pretrained(
                folder,
                config=config,
                use_safetensors=True,
                local_files_only=True,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{file} cannot be read as {type(net).__name__}: {_line(error)}") from error
    counters = "num_batches_tracked"  # frozen norms have none
    missing = [name for name in info["missing_keys"] if not name.endswith(counters)]
    wrong = [f"no entry {name}" for name in sorted(missing)] + [
        f"{name} of another shape" for name in sorted(str(one) for one in info["mismatched_keys"])
    ]
    if wrong:
        raise CheckpointError(f"{file} does not fit {type(net).__name__}: it has {wrong[0]}; use weights of this model")
    state: dict[str, Tensor] = read.state_dict()
    return state


def _require_tensors(file: Path) -> None:
    try:
        with safe_open(file, framework="pt"):
            return
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} is damaged or no safetensors ({_line(error)}); use another copy") from error


def _complete(folder: Path) -> Path:
    """A folder that holds a model.

    Raises:
        CheckpointError: it does not.
    """
    if not is_model_folder(folder):
        raise CheckpointError(f"{folder} has no {CONFIG_FILE} with a model_type; give a folder that transformers saved")
    if not (folder / WEIGHTS_FILE).is_file():
        pickled = (folder / "pytorch_model.bin").is_file()
        why = "; pytorch_model.bin is a pickle, which can run code and is never loaded here" if pickled else ""
        raise CheckpointError(f"{folder} has no {WEIGHTS_FILE}{why}; save the model as safetensors (save_pretrained)")
    return folder


def _in_own_cache(name: str) -> Path | None:
    found = [cached(file) for file in required_files(PREFIX + name)]
    return None if found[0] is None or None in found else found[0].parent


def _in_library_cache(name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = [try_to_load_from_cache(name, file) for file in (CONFIG_FILE, WEIGHTS_FILE)]
    return Path(found[0]).parent if all(isinstance(one, str) for one in found) else None


@contextmanager
def _quiet() -> Iterator[None]:
    """Inside, the library tells errors alone and draws no bar: what does not fit is told by us."""
    from transformers.utils import logging as library_logging

    before = library_logging.get_verbosity()
    library_logging.set_verbosity_error()
    library_logging.disable_progress_bar()
    try:
        yield
    finally:
        library_logging.set_verbosity(before)
        library_logging.enable_progress_bar()


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".")[:200] if lines else type(error).__name__
