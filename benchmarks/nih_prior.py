"""What localizes without looking: the median box of the other images, per finding, on the boxes of NIH ChestX-ray14.

Reads BBox_List_2017.csv or .csv.gz (984 boxes of radiologists on 880 X-rays of 1024 x 1024; Wang et al. 2017,
arXiv:1705.02315), no image. Prints a table: a method that scores no more than this shows nothing.

    python benchmarks/nih_prior.py path/to/BBox_List_2017.csv.gz
"""

import sys
from pathlib import Path

import torch

from seewhy.checks.objects import median_boxes, overlap_of_boxes
from seewhy.data.boxes import NIH_SIZE, read_boxes
from seewhy.data.placing import nih_patients
from seewhy.intervals import interval


def prior_table(path):
    """A line per finding: boxes, patients, median area, and how well the median box of the other images does."""
    marked = [one for one in read_boxes(path).objects if one.box is not None]
    images, findings = [one.file for one in marked], [one.finding for one in marked]
    patients = nih_patients([Path(image) for image in images]) or images
    boxes = torch.tensor([one.box for one in marked], dtype=torch.float64)
    guess = median_boxes(list(boxes[:, None]), images, findings)
    overlap = overlap_of_boxes(guess, boxes)
    middle = (guess[:, :2] + guess[:, 2:]) / 2
    hit = ((middle >= boxes[:, :2]) & (middle < boxes[:, 2:])).all(1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1) / (NIH_SIZE[0] * NIH_SIZE[1])
    for name in [*sorted(set(findings)), "all"]:
        of = torch.tensor([name in ("all", finding) for finding in findings])
        shares = [(overlap[of] >= level).double().mean().item() for level in (0.5, 0.1)]
        yield {
            "finding": name,
            "n": int(of.sum()),
            "area": float(area[of].quantile(0.5)),
            "iou": interval(overlap[of], [who for who, inside in zip(patients, of.tolist(), strict=True) if inside]),
            "iou_50": shares[0],
            "iou_10": shares[1],
            "center": hit[of].double().mean().item(),
        }


def main():
    """Print the table, or say what is missing."""
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_file():
        given = sys.argv[1] if len(sys.argv) > 1 else "no path"
        sys.exit(f"{given}: give the path of BBox_List_2017.csv(.gz), from https://nihcc.app.box.com/v/ChestXray-NIHCC")
    heads = f"{'finding':14} {'n':>4} {'patients':>8} {'area':>6} {'mean IoU [95 %]':>21}"
    print(f"{heads} {'IoU>=.5':>8} {'IoU>=.1':>8} {'center':>7}")
    for row in prior_table(Path(sys.argv[1])):
        mean = f"{row['iou'].value:.3f} [{row['iou'].low:.3f}, {row['iou'].high:.3f}]"
        print(
            f"{row['finding']:14} {row['n']:4} {row['iou'].clusters:8} {row['area']:6.1%} {mean:>21} {row['iou_50']:8.3f} "
            f"{row['iou_10']:8.3f} {row['center']:7.3f}"
        )


if __name__ == "__main__":
    main()
