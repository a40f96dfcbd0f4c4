"""A shortcut that nobody planted: ImageNet networks read a translucent watermark as evidence for the class carton.

Photos, one a class, half of them with the watermark of the package `imagenet-w` (its licence is not ours: it is installed,
never shipped: pip install --no-deps imagenet-w), are given to the audit without a word. Photos: a folder with labels.csv
(file, class_index).
"""

import argparse
import csv
import json
import time
from pathlib import Path

import torch
from imagenet_w import AddWatermark

import seewhy as sw
from seewhy.data.images import read_photo
from seewhy.explanation.inputs import read_inputs

CARTON = 478


def mixed(model, folder: Path, seed: int):
    """(image, class, {}) of every photo, every second one (drawn by the seed) with the watermark; and which have it."""
    with (folder / "labels.csv").open() as file:
        rows = [(folder / row["file"], int(row["class_index"])) for row in csv.DictReader(file)]
    images = torch.cat([read_inputs(model, path)[0] for path, _ in rows if read_photo(path)])
    with_mark = torch.zeros(len(rows), dtype=torch.bool)
    with_mark[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[: len(rows) // 2]] = True
    add = AddWatermark(224)
    marked = torch.stack([add(image) for image in images])
    data = [
        (torch.where(m, b, a), label, {}) for m, a, b, (_, label) in zip(with_mark, images, marked, rows, strict=True)
    ]
    return data, with_mark, images, marked


def main() -> None:
    """Measure the watermark itself, then audit the mix."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--out", type=Path, default=Path("seewhy-carton"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--method", action="append", default=[])
    arguments = parser.parse_args()
    model = sw.load("lite0")
    data, with_mark, clean, marked = mixed(model, arguments.photos, arguments.seed)
    change = model.predict(marked) - model.predict(clean)
    mean = change.mean(0)
    others = mean.clone()
    others[CARTON] = -torch.inf
    best = int(others.argmax())
    print(
        f"pasted on {len(clean)} photos: carton {mean[CARTON]:+.2f} logits, "
        f"the next class {model.labels[best]} {others[best]:+.2f}"
    )
    begun = time.perf_counter()
    methods = arguments.method or ["grad_cam", "occlusion"]
    found = sw.audit(model, data, out=arguments.out, anyway=True, seed=arguments.seed, methods=methods)
    print(f"{time.perf_counter() - begun:.0f} s")
    print(found)
    for one in found.findings:
        shown = {int(name.removeprefix("item ")) for name in one["images"]}
        right = sum(bool(with_mark[i]) for i in shown)
        print(one["status"], one["kind"], one["where"], f"{right} of {len(shown)} images that it names have the mark")
        print(json.dumps(one["effect"], indent=1)[:1500])


if __name__ == "__main__":
    main()
