"""Shards made by all processes of a launch (torchrun, accelerate), and which of them this is."""

from collections.abc import Sequence

from accelerate.utils import gather_object

from sniper.errors import SniperError
from sniper.inference.backend import Backend
from sniper.pipeline.watch import Result, ShardJob, Watch
from sniper.training.devices import process_device, this_process

__all__ = ["make_by_ranks", "process_device", "this_process"]


def make_by_ranks(job: ShardJob[Result], numbers: Sequence[int], backend: Backend, watch: Watch) -> list[Result]:
    """The results of the shards of these numbers, made by all processes of this launch, each of which calls this.

    Every rank makes its share and tells the others, an error too: none may wait for one that has ended.

    Raises:
        SniperError: what a shard's maker raised, in whichever process.
    """
    rank, ranks = this_process()
    made: list[tuple[int, Result | SniperError]] = []
    for number in numbers[rank::ranks]:
        try:
            made.append((number, job.make(number, backend, watch)))
        except SniperError as error:
            made.append((number, error))
            break
    everyone: dict[int, Result | SniperError] = dict(gather_object(made))
    results = []
    for number in sorted(everyone, key=list(numbers).index):
        one = everyone[number]
        if isinstance(one, SniperError):
            raise one
        results.append(one)
    return results
