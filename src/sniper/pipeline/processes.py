"""Shards made by several new processes of this machine, each with its own copy of the network."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.synchronize import Event
from typing import Any, NamedTuple

from sniper.errors import SniperError
from sniper.pipeline.model import load_model
from sniper.pipeline.watch import Result, ShardJob, Source, Watch

AHEAD = 2  # shards of each process that are made, or wait for the ones before them
LOOK_AGAIN_S = 0.2  # how often progress of the processes is shown


class _Shared(NamedTuple):
    """What the processes have in common."""

    started: Any  # how many have begun
    counts: Any  # (3 * processes) images done, windows done and planned of each; written by its own process alone
    stop: Event


class _Surroundings(NamedTuple):
    """What a process takes over from the one that asks for it, at the time that it asks."""

    environment: dict[str, str]
    threads: int | None  # of torch; None leaves what the environment sets

    @classmethod
    def here(cls, processes: int) -> "_Surroundings":
        """Those of this process; so many processes share the cores among them where the environment sets no number."""
        share = max(1, (os.cpu_count() or 1) // processes)
        return cls(dict(os.environ), None if "OMP_NUM_THREADS" in os.environ else share)

    def take_over(self, *, with_torch: bool) -> None:
        """Make them those of this process."""
        os.environ.update(self.environment)
        if self.threads is not None:
            os.environ["OMP_NUM_THREADS"] = str(self.threads)  # for onnxruntime
        if self.threads is not None and with_torch:
            from sniper.pipeline.torch_process import use_threads

            use_threads(self.threads)


def _context(source: Source) -> Any:
    """How processes start: forked from one that has imported everything once, and has neither threads nor a GPU.

    Importing takes each process five to ten seconds of a core otherwise, and memory of its own.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([f"sniper.pipeline.worker_imports{'_onnx' if source.is_onnx else ''}"])
    return context


def in_processes(
    job: ShardJob[Result], numbers: Sequence[int], source: Source, processes: int, watch: Watch
) -> Iterator[Result]:
    """The results of the shards of these numbers, in their order; ``watch`` is told by this process.

    Raises:
        SniperError: what a shard's maker raised, at once and not in its turn; or a process was ended from outside.
    """
    context = _context(source)
    shared = _Shared(context.Value("i", 0), context.Array("q", 3 * processes, lock=False), context.Event())
    surroundings = _Surroundings.here(processes)
    progress = _Progress(shared.counts, watch)
    with ProcessPoolExecutor(processes, context, _begin, (job, source, shared, surroundings)) as pool:
        waiting: deque[Future[Result]] = deque()
        upcoming = iter(numbers)
        try:
            while True:
                while len(waiting) < AHEAD * processes and (number := next(upcoming, None)) is not None:
                    waiting.append(pool.submit(_make, number))
                if not waiting:
                    break
                while not waiting[0].done():
                    done = wait(waiting, LOOK_AGAIN_S, FIRST_EXCEPTION).done
                    progress.show()
                    for failed in (one for one in waiting if one in done and one.exception() is not None):
                        failed.result()
                progress.show()
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise SniperError(
                f"one of {processes} processes was ended from outside, most likely as memory ran out; use fewer"
            ) from error
        finally:
            shared.stop.set()
            pool.shutdown(cancel_futures=True)


class _Progress:
    """Sums what the processes tell."""

    def __init__(self, counts: Any, watch: Watch) -> None:
        self._counts, self._watch = counts, watch
        self._images, self._windows = 0, (0, 0)

    def show(self) -> None:
        """Tell what is new since the last time."""
        images, done, planned = (sum(self._counts[place::3]) for place in range(3))
        if images > self._images:
            self._watch.images(images - self._images)
        if (done, planned) != self._windows:
            self._watch.windows(done, planned)
        self._images, self._windows = images, (done, planned)


_worker: dict[str, Any] = {}  # a worker process' job, backend and watch


def _begin(job: ShardJob[Any], source: Source, shared: _Shared, surroundings: _Surroundings) -> None:
    surroundings.take_over(with_torch=not source.is_onnx)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process' affair
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with shared.started.get_lock():
        place = shared.started.value
        shared.started.value += 1
    device = _device_of(place, source.device)

    def images(more: int) -> None:
        shared.counts[3 * place] += more
        _end_if(shared.stop)

    def windows(done: int, planned: int) -> None:
        shared.counts[3 * place + 1 : 3 * place + 3] = [done, planned]
        _end_if(shared.stop)

    _worker.update(job=job, watch=Watch(images, windows))
    try:
        model = load_model(
            source.checkpoint, device=device, recipe=source.recipe, form=source.form, classes=source.classes
        )
    except SniperError as error:  # raised here, it would be lost
        _worker.update(error=error)
    else:
        _worker.update(backend=model.backend)


def _device_of(place: int, device: str) -> str:
    """The device of a process; several GPUs are dealt out."""
    if device != "cuda":
        return device
    from sniper.pipeline.torch_process import gpu_count

    gpus = gpu_count()
    return f"cuda:{place % gpus}" if gpus > 1 else device


def _make(number: int) -> Any:
    if "error" in _worker:
        raise _worker["error"]
    return _worker["job"].make(number, _worker["backend"], _worker["watch"])


def _end_if(stop: Event) -> None:
    if stop.is_set():  # nobody waits for the result; half of a file goes with the exception
        raise KeyboardInterrupt


def _end_with_parent() -> None:
    """A killed main process must not leave workers behind that wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
