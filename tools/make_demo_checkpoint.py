"""Make the packaged starting weights of ``sniper demo`` again: ten CPU minutes on the three training photos.

    python benchmarks/same_budget.py . --out OUT --runs OUT/runs --data crowns --methods chips --seeds 0
    python tools/make_demo_checkpoint.py OUT/runs/train/crowns-chips-0/last.safetensors

The held-out photo takes no part in it.
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import save

from sniper.files import write_bytes
from sniper.training.checkpoint import load_weights

TARGET = Path(__file__).resolve().parents[1] / "src" / "sniper" / "demo" / "data" / "tree_crowns_fp16.safetensors"


def main() -> None:
    """Weights alone, in half precision: whatever a run says of the machine that it ran on stays out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="last.safetensors of the run")
    weights = load_weights(parser.parse_args().checkpoint).weights
    half = {name: tensor.half() if tensor.dtype == torch.float32 else tensor for name, tensor in weights.items()}
    assert all(torch.isfinite(tensor).all() for tensor in half.values())
    write_bytes(TARGET, save({name: tensor.contiguous() for name, tensor in half.items()}))
    print(f"{TARGET}: {TARGET.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
