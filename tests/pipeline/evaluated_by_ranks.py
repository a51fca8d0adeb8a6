"""What each process of test_shards.py does: evaluate with the others, and write down what came of it.

accelerate launch --num_processes 2 --cpu evaluated_by_ranks.py RUN DATA BAD_DATA FOLDER
"""

import json
import sys
from pathlib import Path

import torch

from sniper.data.detection_files import save_detections
from sniper.errors import DataError
from sniper.pipeline.evaluate import evaluate
from sniper.training.devices import this_process


def main() -> None:
    torch.set_num_threads(1)
    run, data, bad, folder = sys.argv[1:]
    looked_at: list[int] = []
    done = evaluate(run, data, device="cpu", by_ranks=True, output=Path(folder) / "out", on_progress=looked_at.append)
    error = ""
    try:
        evaluate(run, bad, device="cpu", by_ranks=True)
    except DataError as raised:
        error = str(raised)
    rank, _ = this_process()
    save_detections(Path(folder) / f"rank{rank}.safetensors", done.detections)
    report = {"metrics": done.as_dict(), "looked_at": sum(looked_at), "error": error}
    (Path(folder) / f"rank{rank}.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main()
