"""Scans with known truth and a small network that learns them: for radiographs.py, where nothing else is at hand.

Real handwriting (the digits that scikit-learn ships) on noise, in 12-bit DICOM files. The finding "two" is a handwritten 2
somewhere in the scan. It is no medicine: no number from here says anything of radiographs.
"""

import csv
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid
from sklearn.datasets import load_digits
from torch import nn

import seewhy as sw
from seewhy.explanation.inputs import read_inputs

FINDINGS = {"two": 2, "four": 4, "seven": 7}  # a seven lies at one place in every scan, as a heart does
NORMAL = (0, 1, 3, 5, 6, 8, 9)  # in every scan, and no finding
SIDE, CELL, DIGIT = 144, 48, 32  # pixels of a scan, of one of its nine cells, of a digit
PLACE_OF_SEVENS = 7  # the cell in the middle of the lowest row
TOP = 4095  # the brightest of 12 bits
EPOCHS, BATCH, LEARNING_RATE = 12, 16, 4e-3


def network() -> sw.VisionModel:
    """One gray channel in, a logit per finding out; untrained."""
    layers: list[nn.Module] = []
    for before, after, pool in ((1, 16, True), (16, 32, True), (32, 64, False), (64, 64, False)):
        layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if pool else []
    module = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, len(FINDINGS)))
    return sw.wrap(
        module.eval(), mean=[0.5], std=[0.25], size=SIDE // 3, labels=list(FINDINGS), task="multilabel", name="stand-in"
    )


def write_scans(folder: Path, patients: int, seed: int = 0) -> None:
    """Two scans of each patient in train/ or, of every third, in held_out/; beside them findings.csv and boxes.csv.

    Patients and handwriting are split: no digit of a training scan is in a held-out one.
    """
    digits = load_digits()
    random = np.random.default_rng(seed)
    findings, boxes = [("Image Index", "Finding Labels")], [("file", "finding", "x0", "y0", "x1", "y1")]
    for patient in range(patients):
        part, pool = ("held_out", slice(1200, None)) if patient % 3 == 2 else ("train", slice(1200))
        (folder / part).mkdir(parents=True, exist_ok=True)
        tissue = _enlarged(random.random((5, 5)), SIDE)  # a patient's own, the same in both scans
        for scan in range(2):
            name = f"{patient:08d}_{scan:03d}.dcm"
            pixels, found = _scan(tissue, digits.images[pool], digits.target[pool], random)
            _write(folder / part / name, pixels, inverted=patient % 4 == 0)
            findings.append((name, "|".join(finding for finding, _ in found) or "No Finding"))
            boxes += [(name, finding, *box) for finding, box in found]
    for name, rows in (("findings.csv", findings), ("boxes.csv", boxes)):
        with open(folder / name, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)


def _scan(tissue, images, labels, random):
    """Stored values (SIDE, SIDE), and the findings with their boxes x0, y0, x1, y1."""
    wanted = {7: PLACE_OF_SEVENS} if random.random() < 0.5 else {}
    places = random.permutation([cell for cell in range(9) if cell != PLACE_OF_SEVENS]).tolist()
    wanted |= {digit: places.pop() for digit in (2, 4) if random.random() < 0.5}
    wanted |= {digit: places.pop() for digit in random.choice(NORMAL, 3, replace=False).tolist()}
    shades = 0.15 + 0.25 * tissue + random.normal(0, 0.04, (SIDE, SIDE))
    found = []
    for digit, cell in wanted.items():
        x, y = (CELL * np.array([cell % 3, cell // 3]) + random.integers(0, CELL - DIGIT, 2)).tolist()
        ink = _enlarged(images[random.choice(np.flatnonzero(labels == digit))] / 16, DIGIT)
        shades[y : y + DIGIT, x : x + DIGIT] += 0.45 * ink
        ys, xs = np.nonzero(ink > 0.5)
        box = (x + int(xs.min()), y + int(ys.min()), x + int(xs.max()) + 1, y + int(ys.max()) + 1)
        found += [(name, box) for name, number in FINDINGS.items() if number == digit]
    return (TOP * shades.clip(0, 1)).round().astype(np.uint16), found


def _enlarged(values, side):
    return np.asarray(Image.fromarray(values.astype(np.float32)).resize((side, side), Image.Resampling.BICUBIC))


def _write(path: Path, pixels, *, inverted: bool) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[path.name])  # the same scans, the same bytes
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.Modality = "OT"  # other: this is no radiograph
    data.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    data.Rows, data.Columns, data.SamplesPerPixel = SIDE, SIDE, 1
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.WindowCenter, data.WindowWidth = (TOP + 1) / 2, TOP + 1
    data.PixelData = (TOP - pixels if inverted else pixels).astype(np.uint16).tobytes()
    data.save_as(path, enforce_file_format=True)


def train(model: sw.VisionModel, scans: Path, seed: int = 0) -> None:
    """Fit the network, in place, to the training scans, read by seewhy as it will read those that are explained."""
    data = sw.read_dataset(
        scans / "findings.csv", root=scans / "train", kind="labels", path="Image Index", label="Finding Labels"
    )
    x, _ = read_inputs(model, [sample.source for sample in data.samples])
    y = torch.tensor([[float(finding in sample.label) for finding in FINDINGS] for sample in data.samples])
    torch.manual_seed(seed)
    net, (mean,), (std,) = model.module, model.mean, model.std
    for layer in net:
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    optimizer = torch.optim.Adam(net.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, EPOCHS * -(-len(x) // BATCH))
    net.train()
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x)).split(BATCH):
            loss = nn.functional.binary_cross_entropy_with_logits(net((x[rows] - mean) / std), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    net.eval()
