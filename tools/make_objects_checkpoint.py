"""Make the shipped detector of things of any kind again, from a run of its recipe.

    python benchmarks/new_classes.py objects DATA --out objects.json
    sniper train rfcn3k/objectness --data objects.json --images DATA --name objects
    python tools/make_objects_checkpoint.py runs/train/objects/last.safetensors

``docs/new_classes.md`` says what it saw.
"""

import argparse
from pathlib import Path

import torch

from sniper.new_classes.objects import OBJECTS_FILE
from sniper.pipeline.objects_model import TRUNK
from sniper.recipe import Recipe
from sniper.training.checkpoint import load_weights, save_weights

KEPT = {"model", "pyramid", "chips"}  # of its recipe; the rest would say where it was made


def main() -> None:
    """All weights but the trunk's, which are shipped already, in half precision."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="last.safetensors of the run")
    weights, meta = load_weights(parser.parse_args().checkpoint)
    recipe = Recipe.load("rfcn3k/objectness").model_dump(mode="json")
    recipe |= {name: value for name, value in meta.recipe.items() if name in KEPT}
    recipe["model"] = recipe["model"] | {"weights": "imagenet"}
    own = {name: tensor.half() for name, tensor in weights.items() if not name.startswith(TRUNK)}
    assert all(torch.isfinite(tensor).all() for tensor in own.values())
    settings = Recipe.parse(recipe, "objects").model_dump(mode="json")
    save_weights(OBJECTS_FILE, own, meta.model_copy(update={"recipe": settings}))
    print(f"{OBJECTS_FILE}: {OBJECTS_FILE.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
