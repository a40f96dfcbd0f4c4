"""What localizes without looking: the median box of the other images, per finding, on the boxes of NIH ChestX-ray14.

Reads BBox_List_2017.csv or .csv.gz (984 boxes of radiologists on 880 X-rays of 1024 x 1024; Wang et al. 2017,
arXiv:1705.02315), no image. Prints a table: a method that scores no more than this shows nothing.

    python benchmarks/localization_prior.py path/to/BBox_List_2017.csv.gz
"""

import csv
import gzip
import sys
from pathlib import Path

import torch

from seewhy.checks.objects import median_boxes, overlap_of_boxes
from seewhy.intervals import interval

SIDE = 1024


def read(path):
    """Image, finding and box x0, y0, x1, y1 of every row; the header has stray columns."""
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    rows = [row for row in csv.reader(text.splitlines()) if row][1:]
    boxes = torch.tensor([[float(v) for v in row[2:6]] for row in rows], dtype=torch.float64)
    boxes[:, 2:] += boxes[:, :2]
    return [row[0] for row in rows], [row[1] for row in rows], boxes


def table(images, findings, boxes):
    """A line per finding: n, median area, and how well the others' median box does."""
    guess = median_boxes(list(boxes[:, None]), images, findings)
    overlap = overlap_of_boxes(guess, boxes)
    middle = (guess[:, :2] + guess[:, 2:]) / 2
    hit = ((middle >= boxes[:, :2]) & (middle < boxes[:, 2:])).all(1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1) / SIDE**2
    yield f"{'finding':14} {'n':>4} {'area':>6} {'mean IoU [95 %]':>21} {'IoU>=.5':>8} {'IoU>=.1':>8} {'center in box':>14}"
    for name in [*sorted(set(findings)), "all"]:
        of = torch.tensor([name in ("all", finding) for finding in findings])
        found = interval(overlap[of], [image for image, inside in zip(images, of.tolist(), strict=True) if inside])
        shares = [(overlap[of] >= level).double().mean() for level in (0.5, 0.1)]
        yield (
            f"{name:14} {int(of.sum()):4} {float(area[of].quantile(0.5)):6.1%} {found.value:7.3f} "
            f"[{found.low:.3f}, {found.high:.3f}] {shares[0]:8.3f} {shares[1]:8.3f} {hit[of].double().mean():14.3f}"
        )


def main():
    """Print the table, or say what is missing."""
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_file():
        given = sys.argv[1] if len(sys.argv) > 1 else "no path"
        sys.exit(f"{given}: give the path of BBox_List_2017.csv(.gz), from https://nihcc.app.box.com/v/ChestXray-NIHCC")
    print("\n".join(table(*read(Path(sys.argv[1])))))


if __name__ == "__main__":
    main()
