"""Starting from the weights of another training, also one of other classes or with other branches."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from sniper.errors import CheckpointError
from sniper.nn.class_rows import ClassRows, row_of_each, rows_of, with_rows
from sniper.nn.weights import first_not_finite
from sniper.training.checkpoint import load_weights


class Start(NamedTuple):
    """What a detector has from a checkpoint."""

    path: Path
    shared_classes: int  # whose rows were taken over
    classes: int
    at_random: tuple[str, ...]  # parts that the checkpoint does not have, and class layers with a row of no class of it
    unused: tuple[str, ...]  # parts of the checkpoint that the detector does not have

    def sentence(self) -> str:
        """For the log."""
        text = f"weights from {self.path}, {self.shared_classes} of {self.classes} classes known to it"
        text += f"; left at random: {', '.join(self.at_random)}" if self.at_random else ""
        return text + (f"; not used: {', '.join(self.unused)}" if self.unused else "")


def start_from(detector: nn.Module, path: Path | str, class_names: tuple[str, ...]) -> Start:
    """Load a checkpoint into ``detector`` in place, as far as it goes.

    A part (first word of a parameter's name: backbone, head, ...) that only one of both has is left alone. Layers that
    depend on the classes, which a detector names in ``class_layers``, get the rows of the classes whose names agree.
    All else must fit, and nothing is loaded unless it does.

    Raises:
        CheckpointError: the file cannot be read, or does not fit; the first difference is named.
    """
    path = Path(path)
    found, meta = load_weights(path)
    own = detector.state_dict()
    layers: Mapping[str, ClassRows] = getattr(detector, "class_layers", {})
    parts, found_parts = (list(dict.fromkeys(name.partition(".")[0] for name in names)) for names in (own, found))
    common = [part for part in parts if part in found_parts]
    if not common:
        raise CheckpointError(
            f"{path} holds {', '.join(found_parts) or 'nothing'}, and this detector {', '.join(parts)}; "
            "use a checkpoint of the same kind of detector"
        )
    state: dict[str, Tensor] = {}
    partly: list[str] = []
    for name, value in own.items():
        if name.partition(".")[0] not in common:
            state[name] = value
            continue
        if name not in found:
            raise CheckpointError(f"{path} has no {name}, which this detector needs; use one of the same network")
        layer = name.rpartition(".")[0]
        form = layers.get(layer)
        if form is None:
            state[name] = _same_shape(path, name, found[name], value)
            continue
        if found[name].shape[0] != rows_of(form, len(meta.class_names)) or found[name].shape[1:] != value.shape[1:]:
            expected = (rows_of(form, len(meta.class_names)), *value.shape[1:])
            raise CheckpointError(
                f"{path} has {name} of shape {tuple(found[name].shape)}, for its {len(meta.class_names)} classes this "
                f"detector would have {expected}; use a checkpoint of the same network"
            )
        rows = row_of_each(form, class_names, meta.class_names)
        state[name] = with_rows(value, found[name], rows)
        partly += [layer] if len(rows) < len(value) and layer not in partly else []
    extra = next((name for name in found if name not in own and name.partition(".")[0] in common), None)
    if extra is not None:
        raise CheckpointError(f"{path} has {extra}, which this detector does not; use one of the same network")
    broken = first_not_finite(detector, state)
    if broken is not None:
        raise CheckpointError(f"{path}: {broken} has a value that is not a finite number; use another checkpoint")
    detector.load_state_dict(state)
    known = set(meta.class_names)
    return Start(
        path=path,
        shared_classes=sum(name in known for name in class_names),
        classes=len(class_names),
        at_random=(*(part for part in parts if part not in common), *(f"{layer} (new classes)" for layer in partly)),
        unused=tuple(part for part in found_parts if part not in common),
    )


def _same_shape(path: Path, name: str, found: Tensor, own: Tensor) -> Tensor:
    if found.shape != own.shape:
        raise CheckpointError(
            f"{path} has {name} of shape {tuple(found.shape)}, this detector needs {tuple(own.shape)}; "
            "use a checkpoint of the same network and settings"
        )
    return found
