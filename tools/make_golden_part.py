"""Cut the part of the recorded numbers that ships with the tests, ``tests/golden``, out of the whole recording.

    python tools/make_golden_part.py ../shared/golden

The numbers were recorded from the original SNIPER and AutoFocus code (Apache-2.0). Every array is taken over unchanged,
or cut to its first images or scenes: nothing is computed here, so the part has the layout of the whole and
``SNIPER_GOLDEN=tests/golden`` runs the same tests on it. Networks are left out: one needs half a megabyte of weights.
"""

import argparse
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray]

MAX_BYTES = 1_000_000
PART = Path(__file__).resolve().parents[1] / "tests" / "golden"

# Files that hold whole cases, each under ``<case>/``; None takes every case.
CASES: dict[str, tuple[str, ...] | None] = {
    "ops/anchors.npz": None,
    "ops/boxes.npz": None,
    "ops/nms.npz": ("s00", "s01", "s02", "s03", "s04", "s05", "s10", "s11", "s12", "s13", "s14", "s15"),
    "ops/aggregate.npz": ("agg0", "prune"),
    "ops/multi_proposal.npz": ("r16_batch2_pad", "r16_few", "r32_basic"),
    "ops/multi_proposal_target.npz": ("c03", "c11", "c15"),
    "ops/deformable_convolution.npz": ("c2", "c3"),
    "ops/deformable_psroi_pooling.npz": ("c3_notrans", "c3_trans"),
    "ops/mask_target.npz": ("c02", "c03", "c07", "c10", "c13", "c18"),
    "chips/anchor_worker.npz": (
        "k00_res101", "k01_autofocus", "k02_mobilenet", "k09_res101", "k22_autofocus", "k23_mobilenet",
    ),
    "chips/focus_chips.npz": (
        "m00", "m02", "m07", "m10", "m14", "m21", "m25", "m28", *(f"g{number:02d}" for number in range(10)),
    ),
}  # fmt: skip
SCENES = 60  # of chip_generation
IMAGES = 12  # of chip_worker


def cases_of(arrays: Arrays, wanted: Iterable[str] | None) -> Arrays:
    """The arrays of these cases, and those that belong to no case."""
    if wanted is None:
        return arrays
    kept, shared = set(wanted), {name for name in arrays if "/" not in name}
    missing = kept - {name.split("/")[0] for name in arrays}
    if missing:
        sys.exit(f"no such cases in this recording: {', '.join(sorted(missing))}; change CASES")
    return {name: array for name, array in arrays.items() if name in shared or name.split("/")[0] in kept}


def scenes_of(arrays: Arrays, count: int) -> Arrays:
    """The first scenes of ``chip_generation``: one row of counts each, ragged lists behind them."""
    cut = {name: arrays[name][:count] for name in ("params", "n_chips_cpp", "n_chips_py")}
    for name in ("boxes", "covered", "example_chips_cpp", "example_chips_py"):
        cut |= ragged(arrays, name, count)
    return cut


def images_of(arrays: Arrays, count: int) -> Arrays:
    """The first images of ``chip_worker``: ragged lists by image, by chip of an image, or six calls an image."""
    cut = ragged(arrays, "boxes", count) | ragged(arrays, "max_overlaps", count) | {"wh": arrays["wh"][:count]}
    for form in ("resolution", "factor"):
        for kind in ("", "neg_"):
            chips = ragged(arrays, f"{form}/{kind}chips", count)
            number = len(chips[f"{form}/{kind}chips"])
            cut |= chips | ragged(arrays, f"{form}/{kind}props_in_chips", number)
        cut |= ragged(arrays, f"{form}/generator_calls", 6 * count)
        cut[f"{form}/generator_calls_wh"] = arrays[f"{form}/generator_calls_wh"][: 6 * count]
        cut[f"{form}/run_counts"] = arrays[f"{form}/run_counts"][:count]
        for name in ("valid_ranges", "scales", "chip_size_stride"):
            cut[f"{form}/{name}"] = arrays[f"{form}/{name}"]
    return cut


def ragged(arrays: Arrays, name: str, count: int) -> Arrays:
    """The first ``count`` lists of a ragged array, and their lengths."""
    counts = arrays[f"{name}/counts"][:count]
    return {name: arrays[name][: int(counts.sum())], f"{name}/counts": counts}


def load(path: Path) -> Arrays:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recording", type=Path, help="folder with ops/, chips/ of the whole recording")
    parser.add_argument("-o", "--output", type=Path, default=PART, help="replaced (tests/golden)")
    chosen = parser.parse_args()
    parts = {name: cases_of(load(chosen.recording / name), wanted) for name, wanted in CASES.items()}
    parts["chips/chip_generation.npz"] = scenes_of(load(chosen.recording / "chips/chip_generation.npz"), SCENES)
    parts["chips/chip_worker.npz"] = images_of(load(chosen.recording / "chips/chip_worker.npz"), IMAGES)
    for folder in ("ops", "chips"):
        shutil.rmtree(chosen.output / folder, ignore_errors=True)
        (chosen.output / folder).mkdir(parents=True)
    for name, arrays in parts.items():
        np.savez_compressed(chosen.output / name, **arrays)
    total = sum(path.stat().st_size for path in chosen.output.rglob("*.npz"))
    print(f"{total} bytes in {len(parts)} files")
    if total > MAX_BYTES:
        sys.exit(f"expected at most {MAX_BYTES} bytes, got {total}; take fewer cases")


if __name__ == "__main__":
    main()
