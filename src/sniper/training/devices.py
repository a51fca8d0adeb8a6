"""Devices, precision and processes, through accelerate."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FunctionType
from typing import Any, TypeVar

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import GradientAccumulationPlugin, broadcast_object_list, parse_flag_from_env
from torch import nn

from sniper.errors import RecipeError
from sniper.structures import Batch
from sniper.training.config import TrainConfig

Value = TypeVar("Value")


def build_accelerator(config: TrainConfig) -> Accelerator:
    """An accelerator for one run: device, autocast, loss scaling and gradient exchange as configured.

    Raises:
        RecipeError: fp16 is asked for on a CPU, or the CPU where the launch's processes have met on GPUs.
    """
    # accelerate keeps one state a process and refuses another precision; a notebook or a test trains more than once.
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    accelerator = Accelerator(
        cpu=config.device == "cpu" or _only_cpu(),
        mixed_precision={"fp32": "no", "bf16": "bf16", "fp16": "fp16"}[config.precision],
        # One: the loop itself takes the mean over a step's batches, of which an epoch's last step may have fewer.
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=config.unused_parameters)],
    )
    if config.device == "cpu" and accelerator.device.type != "cpu":
        raise RecipeError(
            f"train.device is cpu, but the processes of this launch have met on {accelerator.device.type}; "
            "launch with ACCELERATE_USE_CPU=true, or set train.device to auto"
        )
    if config.precision == "fp16" and accelerator.device.type == "cpu":
        raise RecipeError("train.precision is fp16, which needs a GPU, and this run is on the CPU; choose bf16 or fp32")
    return accelerator


def meet(config: TrainConfig) -> None:
    """Have the processes of this launch find each other on the device of ``config``, before anything needs them.

    Raises:
        RecipeError: several were asked for, and this is the only one.
    """
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    state = PartialState(cpu=config.device == "cpu" or _only_cpu())
    # Asked for several processes on CPUs, accelerate prepares an address for them to meet and starts one.
    prepared = {"ACCELERATE_MIXED_PRECISION", "MASTER_ADDR"} <= os.environ.keys()
    if prepared and "WORLD_SIZE" not in os.environ and state.num_processes == 1:
        raise RecipeError(
            "accelerate launch was asked for several processes and has started one, as it always does on CPUs; "
            "launch with torchrun --nproc_per_node N -m sniper train ..., or ask for one"
        )


def _only_cpu() -> bool:
    """Several processes on a machine without GPU find each other only if accelerate is told so."""
    return not torch.accelerator.is_available() or parse_flag_from_env("ACCELERATE_USE_CPU")


def on_main(make: Callable[[], Value]) -> Value:
    """Call ``make`` in the main process and give its (picklable) result to every process of this launch."""
    state = PartialState(cpu=_only_cpu())
    box: list[Value | None] = [make() if state.is_main_process else None]
    if state.num_processes > 1:
        broadcast_object_list(box)
    return box[0]  # type: ignore[return-value]


def this_process() -> tuple[int, int]:
    """This process' number in the launch, and how many there are."""
    state = PartialState(cpu=_only_cpu())
    return state.process_index, state.num_processes


def process_device() -> torch.device:
    """The device that training takes in this process, unless the recipe asks for the CPU."""
    device: torch.device = PartialState(cpu=_only_cpu()).device
    return device


def wait_for_everyone() -> None:
    """Go on when every process of this launch has come here."""
    state = PartialState(cpu=_only_cpu())
    if state.num_processes > 1 and state.device.type == "cpu":
        # Where the machine has a GPU, accelerate's would wait on a tensor on the GPU of the process' number, which
        # ends all processes that have no GPU of their number.
        torch.distributed.barrier()
    else:
        state.wait_for_everyone()


def pinned(batch: Batch, device: torch.device) -> Batch:
    """The batch in page-locked memory where it goes to a CUDA device: the copy then overlaps with the step before."""
    return batch.pin_memory() if device.type == "cuda" else batch


def share_buffers(module: nn.Module) -> None:
    """Give every process the main one's buffers. Gradients are exchanged while training, running statistics are not."""
    if PartialState(cpu=_only_cpu()).num_processes > 1:
        for buffer in module.buffers():
            torch.distributed.broadcast(buffer, 0)


@contextmanager
def compiled_parts(detector: nn.Module, wanted: bool) -> Iterator[None]:
    """While entered, the networks that ``detector`` is made of run compiled.

    They are the parts where time goes and shapes stand still; losses and targets around them do not compile well.
    """
    parts = list(detector.children()) if wanted else []
    for part in parts:
        part._compiled_call_impl = torch.compile(_with_own_code(part._call_impl))  # as compile() does, but for the code
    try:
        yield
    finally:
        for part in parts:
            part._compiled_call_impl = None  # torch has no way back of its own


def _with_own_code(call: Callable[..., Any]) -> Callable[..., Any]:
    """``call``, through a code object of its own.

    torch counts compilations by code object and goes on without compiling, with one warning, after eight of one.
    ``nn.Module.compile`` gives all modules of a process the same one: the parts of a few detectors use it up.
    """

    def through(*args: Any, **named: Any) -> Any:
        return call(*args, **named)

    return FunctionType(through.__code__.replace(), through.__globals__, closure=through.__closure__)


def agree(accelerator: Accelerator, minutes: float, stop: bool) -> tuple[float, bool]:
    """The main process' clock, and whether any process was asked to stop: the same answer everywhere."""
    if accelerator.num_processes == 1:
        return minutes, stop
    told = torch.tensor([minutes if accelerator.is_main_process else 0.0, float(stop)], dtype=torch.float64)
    if accelerator.device.type == "mps":
        told = told.float()
    summed = accelerator.reduce(told.to(accelerator.device), reduction="sum").tolist()
    return summed[0], summed[1] > 0
