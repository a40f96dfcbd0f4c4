"""Does the map of each finding point at what people marked as that finding: a card per finding, and whom to look at again."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from seewhy import runfolder
from seewhy.checks import CheckResult
from seewhy.checks.objects import Objects
from seewhy.data.boxes import Annotations, MarkedObject
from seewhy.data.geometry import Geometry
from seewhy.data.images import find_images
from seewhy.data.labels import class_of
from seewhy.data.placing import Placed, match_files, match_objects, nih_patients, place
from seewhy.errors import UsageError, near_names
from seewhy.explanation.inputs import read_inputs
from seewhy.model import VisionModel
from seewhy.registry import MethodInfo, find_method
from seewhy.trust.card import Progress, TrustCard, card_of, prepared
from seewhy.wrapping import bare

SPELLINGS = {"infiltrate": "Infiltration"}  # BBox_List_2017.csv spells a label of its own data set in another way
UNNAMED = "object"  # what boxes without a finding are of
Unused = dict[str, str]  # path, reason


@dataclass(frozen=True)
class Finding:
    """What is compared: the objects of one finding, by image, with the question that the map answers."""

    name: str
    target: Any  # a class index, what the user asked, or None: the predicted class
    objects: tuple[tuple[int, MarkedObject], ...]  # image, object


@dataclass(frozen=True)
class LocalizationReport:
    """A trust card with the localization check per finding; what could not be used; the images to look at again."""

    cards: dict[str, TrustCard]  # by finding
    unused: tuple[Unused, ...]  # objects and entries that are no part of the numbers, each with the reason
    notes: tuple[str, ...]  # what was done to the annotations

    @property
    def results(self) -> dict[str, CheckResult]:
        """By finding what the check found."""
        return {finding: card["localization"] for finding, card in self.cards.items()}

    @property
    def review_queue(self) -> list[dict[str, Any]]:
        """Images whose map peaks where its finding was never marked in another patient: image, finding, score, reason."""
        return [
            {**entry, "image": card.about["images"][entry["image"]], "finding": finding}
            for finding, card in self.cards.items()
            for entry in card["localization"].details.get("review_queue", [])
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "findings": {finding: card.to_dict() for finding, card in self.cards.items()},
            "review_queue": self.review_queue,
            "unused": list(self.unused),
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        lines = [f"{finding}: {result.verdict}. {result.sentence}" for finding, result in self.results.items()]
        queue = f"{len(self.review_queue)} maps to look at again; {len(self.unused)} annotations were not used."
        return "\n".join([*lines, queue, *self.notes])

    __repr__ = __str__


def localization_report(
    model: VisionModel | nn.Module,
    images: str | Path | Sequence[str | Path],
    annotations: Annotations | Sequence[Annotations],
    method: str | MethodInfo = "grad_cam",
    findings: Sequence[str] | None = None,
    *,
    target: Any = None,
    layer: Any = None,
    clusters: Sequence[object] | None = None,
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    progress: Progress | None = None,
    **params: Any,
) -> LocalizationReport:
    """Does the map point at what people marked, finding by finding: the localization check on the images that have it.

    images: files, or folders of them. annotations: what `read_boxes` gives, one or several (several annotators). The map of
    each finding is that of the model's class of its name (also NIH's "Infiltrate": Infiltration), over the images in which
    anybody marked it; `target` asks another question. findings: only these. clusters: per image whom it is of; else the
    column that `read_boxes(clusters=...)` read, or the patient where every file is named as in NIH ChestX-ray14; else each
    image stands for itself. Intervals resample, and the median box and the plausible region leave out, whole patients.
    settings: other parameters of the check. out: a run folder for cards, maps and the review queue (review_queue.csv).

    UsageError where no annotation is of these images or of a class of the model. What is cut away by the model's crop, what
    is of no class, or beyond the photo, is listed in `unused`.
    """
    info, model = find_method(method), model if isinstance(model, VisionModel) else bare(model)
    paths = _files(images)
    several = [annotations] if isinstance(annotations, Annotations) else list(annotations)
    wanted, unused = read_findings(model, paths, several, findings, target)
    if model.preprocess is not None:
        raise UsageError(
            "this network has a preprocess of its own: where a box of the photo lies in its input is unknown."
        )
    x, sources = read_inputs(model, list(paths))
    geometries = [one.geometry for one in sources if one.geometry is not None]
    groups = _clusters(paths, several, clusters)
    looked = _looked(paths, several)
    folder = None if out is None else runfolder.open_folder(out)
    cards: dict[str, TrustCard] = {}
    done: set[str] = set()
    for one in wanted:
        rows, people, notes, lost = _placed(one, paths, geometries, looked)
        unused += lost
        done |= notes
        if not rows:
            continue
        given = {**(settings or {}), "annotators": people}
        if groups is not None:
            given["clusters"] = [groups[i] for i in rows]
        asked = prepared(info, ["localization"], seed, {"localization": given})
        shown = [sources[i] for i in rows]
        card = card_of(
            model, x[rows], shown, info, one.target, layer, seed, dict(params), asked, None, folder, progress
        )
        cards[one.name] = card
    if not cards:
        raise UsageError(f"no marked object lies in what the model is shown; the first: {unused[0]['reason']}.")
    report = LocalizationReport(cards, tuple(unused), tuple(sorted(done)))
    if folder is not None:
        runfolder.write_file(folder / runfolder.QUEUE, _csv(report.review_queue))
    return report


def _files(images: str | Path | Sequence[str | Path]) -> list[Path]:
    several = [images] if isinstance(images, str | Path) else list(images)
    wrong = next((one for one in several if not isinstance(one, str | Path)), None)
    if wrong is not None:
        raise UsageError(f"images are files here, as annotations name them; got {type(wrong).__name__}.")
    return find_images(several)


def read_findings(
    model: VisionModel,
    paths: Sequence[Path],
    annotations: Sequence[Annotations],
    findings: Sequence[str] | None,
    target: Any,
) -> tuple[list[Finding], list[Unused]]:
    """The findings that are marked in these images and that the model has an answer to, and what is of no use here."""
    objects = [one for several in annotations for one in several.objects]
    images = match_objects(objects, paths)
    unused = [dict(skip) for several in annotations for skip in several.skipped]
    elsewhere = {one.file for one in objects} - images.keys()
    if elsewhere:
        unused.append(
            _unused(str(annotations[0].path), f"annotated images that are not among those given: {len(elsewhere)}")
        )
    here = [(images[one.file], one) for one in objects if one.file in images and one.box is not None]
    named = _only(dict.fromkeys(one.finding for _, one in here), findings)
    of_class: dict[str, Finding] = {}
    reasons = []
    for name in named:
        found = tuple(pair for pair in here if pair[1].finding == name)
        try:
            asked, shown = (target, name or UNNAMED) if target is not None else _question(model, name)
        except ValueError as error:
            reasons.append(f"{name!r} (marked {len(found)} times): {error}")
            unused.append(_unused(str(annotations[0].path), reasons[-1]))
            continue
        earlier = of_class[shown].objects if shown in of_class else ()
        of_class[shown] = Finding(shown, asked, (*earlier, *found))
    if not of_class:
        why = reasons[0] if reasons else "in none of the images anything is marked"
        raise UsageError(f"{why}. target= (--target) says which output the boxes are of.")
    return list(of_class.values()), unused


def _only(names: Iterable[str], wanted: Sequence[str] | None) -> list[str]:
    names = list(names)
    if wanted is None:
        return names
    folded = {name.casefold(): name for name in names}
    for name in wanted:
        if name.casefold() not in folded:
            raise UsageError(f"no object is marked as {name!r} in these images: {near_names(name, names)}")
    return [folded[name.casefold()] for name in wanted]


def _question(model: VisionModel, name: str) -> tuple[int | None, str]:
    """The class of a finding and its name; of boxes without a finding the predicted class, where there is one."""
    if not name:
        if model.task not in ("multiclass", "binary"):
            raise ValueError(f"they name no finding, and a {model.task} network predicts no one class")
        return None, UNNAMED
    if model.task not in ("multiclass", "multilabel", "binary"):
        raise ValueError(f"a {model.task} network has no classes")
    return class_of(model, SPELLINGS.get(name.lower(), name) if name not in (model.labels or []) else name)


def _clusters(
    paths: Sequence[Path], annotations: Sequence[Annotations], given: Sequence[object] | None
) -> list[object] | None:
    """What each image belongs to; None where each stands for itself."""
    if given is not None:
        if len(given) != len(paths):
            raise UsageError(f"clusters has an entry per image; got {len(given)} for {len(paths)} images.")
        return list(given)
    objects = [one for several in annotations for one in several.objects if one.source]
    if not objects:
        patients = nih_patients(paths)
        return None if patients is None else list(patients)
    images = match_files([one.file for one in objects], paths)
    found: dict[int, set[str]] = {}
    for one in objects:
        if one.file in images:
            found.setdefault(images[one.file], set()).add(one.source)
    torn = next((i for i, several in found.items() if len(several) > 1), None)
    if torn is not None:
        raise UsageError(f"{paths[torn].name} belongs to {' and '.join(sorted(found[torn]))}: one group per image.")
    return [next(iter(found[i])) if i in found else f"image {i}" for i in range(len(paths))]


def _looked(paths: Sequence[Path], annotations: Sequence[Annotations]) -> dict[str, torch.Tensor]:
    """By annotator the images (N,) that they looked at: those of which their annotations say anything."""
    objects = [one for several in annotations for one in several.objects]
    images = match_files([one.file for one in objects], paths)
    found: dict[str, torch.Tensor] = {}
    for one in objects:
        seen = found.setdefault(one.annotator, torch.zeros(len(paths), dtype=torch.bool))
        if one.file in images:
            seen[images[one.file]] = True
    return found


def _placed(
    finding: Finding, paths: Sequence[Path], geometries: Sequence[Geometry], looked: Mapping[str, torch.Tensor]
) -> tuple[list[int], list[Objects], set[str], list[Unused]]:
    """The images in which the finding lies, who marked what in them, what was done to bring it there, what got lost."""
    by_place: dict[tuple[str, int], list[Placed]] = {}
    notes, lost, cut = set(), [], 0
    for image, one in finding.objects:
        try:
            found = place(one, paths[image], geometries[image])
        except ValueError as error:
            lost.append(_unused(str(paths[image]), f"{paths[image].name}, {finding.name}: {error}"))
            continue
        cut += found.cut
        notes |= {found.note} - {""}
        by_place.setdefault((one.annotator, image), []).append(found)
    if cut:
        notes.add(
            f"{finding.name}: {cut} of {len(finding.objects)} objects reach beyond what the model is shown: cut off"
        )
    rows = sorted({image for _, image in by_place})
    people = [
        _objects([by_place.get((who, image), []) for image in rows], geometries[0].size, looked[who][rows], who)
        for who in sorted(looked)
        if bool(looked[who][rows].any())
    ]
    return rows, people, notes, lost


def _objects(placed: Sequence[Sequence[Placed]], size: tuple[int, int], looked: torch.Tensor, who: str) -> Objects:
    """What one annotator marked in some images."""
    masks = np.zeros((len(placed), *size), dtype=bool)
    for mask, several in zip(masks, placed, strict=True):
        for one in several:
            mask |= one.mask
    boxes = tuple(torch.tensor([p.box for p in several], dtype=torch.float64).reshape(-1, 4) for several in placed)
    return Objects(torch.from_numpy(masks), boxes, looked, who)


def _unused(path: str, reason: str) -> Unused:
    return {"path": path, "reason": reason}


def _csv(queue: Sequence[Mapping[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "finding", "pixels_outside", "reason"])
    writer.writerows([one["image"], one["finding"], f"{one['score']:.1f}", one["reason"]] for one in queue)
    return text.getvalue().encode("utf-8", "backslashreplace")
