r"""Maps of a chest-radiograph network per finding, held against what people marked, checked, and kept as a record to sign.

    python radiographs.py                 # nothing at hand: scans with known truth and a small network, made in a minute
    python radiographs.py SCANS --boxes BBox_List_2017.csv --weights chexnet.pth \
                          --truth Data_Entry_2017_v2020.csv --training TRAINING_SCANS

To change for your own network: `chexnet` (how it is built, and how it wants its pixels) and `patient_of`.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.stats import rankdata
from torch import nn

import seewhy as sw
from seewhy.data.images import find_images
from seewhy.explanation.inputs import read_inputs
from seewhy.faces.cli import app

LABELS = (  # the order of the outputs: that of Wang et al. 2017, arXiv:1705.02315
    *("Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax"),
    *("Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia"),
)
SHOWN, CHECKED = 3, 9  # scans of each finding whose maps are drawn; that the checks look at (9: nulls of 200 pairs)
DRAWS = 1000  # of patients, for the interval of an AUROC
METHODS = ("grad_cam", "integrated_gradients", "occlusion")
CHECKS = ["model_randomization", "class_discrimination", "agreement"]
PURPOSE = "An example: nothing is decided by this network."
UNTRAINED = (
    "NO TRAINED WEIGHTS: {model} has learned nothing, so a map of it would say nothing of any scan, and none is made. "
    "(No package ships trained ones; --weights FILE takes yours.) Only the plumbing is tried:"
)


def chexnet() -> sw.VisionModel:
    """A DenseNet-121 in the shape of CheXNet (Rajpurkar et al. 2017, arXiv:1711.05225): 14 findings, a logit each.

    No sigmoid at its end: seewhy explains logits, and task="multilabel" says that the probability is their sigmoid.
    """
    from torchvision.models import densenet121

    module = densenet121(weights=None)
    module.classifier = nn.Linear(module.classifier.in_features, len(LABELS))
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's
    how = {"size": 224, "framing": "stretch", "interpolation": "bilinear"}
    return sw.wrap(module.eval(), mean=mean, std=std, labels=LABELS, task="multilabel", name="densenet121-14", **how)


def patient_of(scan: Path) -> str:
    """Whom a scan is of: 00013118_008.png, as NIH names them, is of patient 00013118."""
    return scan.stem.split("_")[0]


def seewhy(*arguments: object) -> None:
    """A command of seewhy's, as one would type it."""
    words = [str(word) for word in arguments]
    print(f"\n$ seewhy {shlex.join(words)}", flush=True)
    code = app(words, standalone_mode=False)
    if code:
        sys.exit(code)


def plumbing(model: sw.VisionModel, folder: Path, boxes: Path | None) -> None:
    """Without trained weights: that scans are read, shapes fit and boxes are understood. No map."""
    paths = find_images([folder])[:SHOWN]
    x, shown = read_inputs(model, paths)
    print(UNTRAINED.format(model=model.name))
    answers = model.predict(x)
    print(f"  {len(x)} scans are read as {tuple(x.shape[1:])} in [{x.min():.2f}, {x.max():.2f}]")
    print(f"  answers {tuple(answers.shape)}, all of them finite numbers: {bool(answers.isfinite().all())}")
    for one in shown:
        print(f"  {Path(one.name).name}: {'; '.join(one.notes) or 'as it is'}")
    if boxes is not None:
        marked = sw.read_boxes(boxes)
        named = sorted({one.finding for one in marked.objects if one.finding})
        print(f"  {boxes.name}: {len(marked.objects)} entries, {len(marked.skipped)} skipped; of {', '.join(named)}")


def auroc(scores: np.ndarray, truth: np.ndarray) -> float:
    """How often a scan with the finding gets a higher score than one without; NaN where there is no pair."""
    sick = int(truth.sum())
    pairs = sick * (len(truth) - sick)
    return (rankdata(scores)[truth].sum() - sick * (sick + 1) / 2) / pairs if pairs else np.nan


def print_aurocs(model: sw.VisionModel, scans: Path, table: Path) -> None:
    """What the network knows of scans that it never saw; 95 % intervals over patients."""
    data = sw.read_dataset(table, root=scans, kind="labels", path="Image Index", label="Finding Labels")
    x, _ = read_inputs(model, [sample.source for sample in data.samples])
    scores = model.predict(x).numpy()
    patients = [patient_of(sample.source) for sample in data.samples]
    members = [np.flatnonzero(np.array(patients) == one) for one in sorted(set(patients))]
    random = np.random.default_rng(0)
    draws = [np.concatenate([members[k] for k in random.integers(0, len(members), len(members))]) for _ in range(DRAWS)]
    print(f"\nAUROC [95 % interval] on {len(data)} held-out scans of {len(members)} patients")
    for k, finding in enumerate(model.labels):
        truth = np.array([finding in sample.label for sample in data.samples])
        line = f"  {finding:20} {truth.sum()} have it, {(~truth).sum()} do not"
        if truth.any() and not truth.all():
            low, high = np.nanpercentile([auroc(scores[rows, k], truth[rows]) for rows in draws], [2.5, 97.5])
            line += f": {auroc(scores[:, k], truth):.3f} [{low:.3f}, {high:.3f}]"
        print(line)


def study(
    how: tuple[str, Path],
    scans: Path,
    boxes: Path,
    truth: Path | None,
    training: Path | None,
    out: Path,
    target: str | None = None,
) -> sw.LocalizationReport:
    """The whole of it, on scans that the network was not trained on.

    how: the network's specification and the file of its weights. target: the class that the boxes are of, where they name
    findings that are no class of the network.
    """
    model = sw.load(how[0], weights=how[1])
    named = ["--model", how[0], "--weights", how[1]]
    paths, run = find_images([scans]), out / "run"
    if truth is not None:
        print_aurocs(model, scans, truth)

    # 1. Where do the maps of each finding lie, beside guesses that never saw the picture?
    patients = [patient_of(path) for path in paths]
    marked = sw.read_boxes(boxes)
    report = sw.localization_report(model, paths, marked, "grad_cam", target=target, clusters=patients, out=run)
    print(f"\n{report}")

    # 2. Maps to look at: Grad-CAM, Integrated Gradients from the mean training image, and one that needs no gradient
    baseline = "blur"  # never black: in a scan black is a measurement
    if training is not None:
        baseline = out / "mean.npy"
        seewhy("mean-image", training, *named, "--out", baseline)
    methods = [word for name in METHODS for word in ("--method", name)]
    for finding, card in report.cards.items():
        shown = card.about["images"][:SHOWN]
        asked = ["--target", target or finding, *methods, "--param", f"baseline={baseline}"]
        seewhy("explain", *shown, *named, *asked, "--root", scans, "--out", run)

    # 3. Would the map be another one for another network, and for another finding?
    for finding, card in report.cards.items():
        some = card.about["images"][:CHECKED]
        print(f"\n{finding}: {sw.check(model, some, only=CHECKS, target=target or finding, out=run)}")

    # 4. Whom to look at again; the page, the record to sign, and the proof that nothing was changed since
    print(
        f"\n{len(report.review_queue)} maps peak where their finding lies in no other patient: {run / 'review_queue.csv'}"
    )
    seewhy("report", run)
    seewhy("report", run, "--compliance", "--purpose", PURPOSE)
    seewhy("ledger", "verify", run)
    return report


def stand_in_study(out: Path, patients: int) -> sw.LocalizationReport:
    """The same on scans and a network that are made here."""
    import stand_in

    print(f"\nTHE STAND-IN: handwritten digits on noise in DICOM files ({out}), no radiographs; their truth is known.")
    scans = out / "scans"
    stand_in.write_scans(scans, patients)
    plumbing(chexnet(), scans / "held_out", None)
    model, weights = stand_in.network(), out / "stand_in.pth"
    stand_in.train(model, scans)
    torch.save(model.module.state_dict(), weights)
    how = ("stand_in:network", weights)
    return study(how, scans / "held_out", scans / "boxes.csv", scans / "findings.csv", scans / "train", out)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", type=Path, nargs="?", help="folder of scans that the network was not trained on")
    parser.add_argument("--boxes", type=Path, help="what people marked in them: whatever sw.read_boxes reads")
    parser.add_argument("--weights", type=Path, help="trained weights of `chexnet`")
    parser.add_argument("--truth", type=Path, help="table of findings as NIH's: Image Index, Finding Labels (A|B)")
    parser.add_argument("--training", type=Path, help="folder of training scans: their mean is the baseline")
    parser.add_argument("--target", help="the finding that the boxes are of, where they name none of the network's")
    parser.add_argument("--out", type=Path, default=Path("radiographs-out"), help="an empty or new folder")
    parser.add_argument("--patients", type=int, default=300, help="of the stand-in")
    given = parser.parse_args(arguments)
    if (given.scans is None) != (given.boxes is None) or (given.scans is None and given.weights is not None):
        parser.error("SCANS and --boxes come together, and --weights with them; without any, the stand-in is shown")
    if given.weights is None and given.scans is not None:
        plumbing(chexnet(), given.scans, given.boxes)
        return
    given.out.mkdir(parents=True, exist_ok=True)
    if given.weights is not None:
        how = ("radiographs:chexnet", given.weights)
        study(how, given.scans, given.boxes, given.truth, given.training, given.out, given.target)
        return
    stand_in_study(given.out, given.patients)


if __name__ == "__main__":
    try:
        main()
    except sw.SeewhyError as error:
        sys.exit(f"error: {error}")
