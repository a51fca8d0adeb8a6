"""What a process of ``processes.py`` asks of torch; one that runs an ONNX file on a CPU does not import it."""

import torch


def use_threads(count: int) -> None:
    """Let torch compute with so many threads."""
    torch.set_num_threads(count)


def gpu_count() -> int:
    """GPUs that processes are dealt to."""
    return int(torch.cuda.device_count())
