"""Claim: looking at headers and ends before training takes a small share of the time that decoding all images takes.

    python benchmarks/file_check.py shared/data/coco_subset [--split train] [--repeat 20]

Prints files a second of processor time for the quick look (repeated) and for decoding each image once.
"""

import argparse
import json
import time

from sniper.data.source import DataSource
from sniper.pixels.decode import read_image
from sniper.pixels.quick_look import quick_look


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--split")
    parser.add_argument("--repeat", type=int, default=20)
    options = parser.parse_args()
    table = DataSource(options.data, options.split).open("train", needs_images=True)
    files = [(table.image_path(row), tuple(table.sizes_wh[row].tolist())) for row in range(len(table))]
    for path, size_wh in files:  # into the cache of the system
        read_image(path, size_wh=size_wh)
    start = time.process_time()
    for path, size_wh in files:
        read_image(path, size_wh=size_wh)
    decoding = time.process_time() - start
    start = time.process_time()
    for _ in range(options.repeat):
        for path, size_wh in files:
            assert quick_look(path, size_wh=size_wh, whole_pixels=64e6).error is None
    looking = (time.process_time() - start) / options.repeat
    rates = {"quick look": round(len(files) / looking), "decoding": round(len(files) / decoding)}
    print(json.dumps({"images": len(files), "files a second of processor time": rates}, indent=1))


if __name__ == "__main__":
    main()
