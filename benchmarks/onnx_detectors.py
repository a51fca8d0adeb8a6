"""An ONNX detector from elsewhere on a COCO dataset: plain, and with a finer level in windows; one JSON line each.

python benchmarks/onnx_detectors.py MODEL.onnx DATA.json [--form fastestdet] [--side 352]
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from sniper.backends.onnx.form import form_file
from sniper.data.source import load_dataset
from sniper.pipeline.evaluate import evaluate
from sniper.pipeline.model import load_model


def main() -> None:
    """Evaluate every way in one run, on the same images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--form", default="fastestdet")
    parser.add_argument("--side", type=int, default=352, help="side of the model's input, px")
    given = parser.parse_args()
    place = form_file(given.model, given.form)
    assert place is not None
    form, side = yaml.safe_load(place.read_text()), given.side
    padded = form | {"input": form["input"] | {"fit": "pad"}}
    coarse, fine = {"long_px": side}, {"long_px": 2 * side}
    ways: dict[str, tuple[dict[str, Any], float | None]] = {
        "whole image, stretched": (form, None),
        "whole image, padded": (padded, None),
        "two levels": (
            padded | _levels({**fine, "infer_range_px": [0, 96]}, {**coarse, "infer_range_px": [48, None]}),
            None,
        ),
    }
    ways["two levels, AutoFocus 0.3"] = (ways["two levels"][0], 0.3)
    table = load_dataset(given.data)
    for name, (settings, threshold) in ways.items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "form.yaml"
            path.write_text(yaml.safe_dump(settings))
            model = load_model(given.model, form=path, device="cpu").focused(threshold)
            start = time.perf_counter()
            done = evaluate(model, table)
        numbers = {k: round(done.as_dict()[k], 4) for k in ("AP", "AP50", "AP_small", "AP_medium", "AP_large")}
        cost = {"megapixels": round(done.pixels_per_image / 1e6, 3), "seconds": round(time.perf_counter() - start, 1)}
        print(json.dumps({"way": name, **numbers, **cost}), flush=True)


def _levels(*levels: dict[str, Any]) -> dict[str, Any]:
    return {"pyramid": {"levels": list(levels)}}


if __name__ == "__main__":
    main()
