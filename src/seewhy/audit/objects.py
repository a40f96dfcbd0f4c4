"""Where people marked the object: what lies outside of it, and how much of a map does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seewhy.audit.candidate import Candidate
from seewhy.data.boxes import Annotations, MarkedObject, read_boxes
from seewhy.data.dataset import DataSet
from seewhy.data.geometry import Geometry, resize
from seewhy.data.placing import match_objects, place
from seewhy.errors import UsageError
from seewhy.intervals import interval
from seewhy.model import VisionModel

Skip = dict[str, str]
Record = dict[str, Any]


@dataclass(frozen=True)
class Marked:
    """What is marked in the images of a data set, by sample; entries that are of no use here, with the reason."""

    objects: Mapping[int, Sequence[MarkedObject]]
    unused: list[Skip]

    def mask_of(self, data: DataSet, sample: int, geometry: Geometry | None) -> Tensor:
        """(H, W) bool: every object of a sample in the model's input; what cannot be placed is added to `unused`."""
        assert geometry is not None, "who prepares images otherwise was refused"
        assert data.root is not None, "and so were images without a file"
        name = data.samples[sample].name
        found = np.zeros(geometry.size, dtype=bool)
        for one in self.objects.get(sample, ()):
            try:
                found |= place(one, data.root / name, geometry).mask
            except ValueError as error:
                self.unused.append({"path": name, "reason": str(error)})
        return torch.from_numpy(found)


def read_marked(given: Any, data: DataSet, model: VisionModel) -> Marked | None:
    """Files of boxes or masks, or what `read_boxes` gave, matched to the samples; None where nothing is given.

    UsageError, before any work, where none is of these images, or where it is unknown how the model is shown a photo.
    """
    if given is None or (isinstance(given, list | tuple) and not given):
        return None
    several = [given] if isinstance(given, str | Path | Annotations) else list(given)
    read = [one if isinstance(one, Annotations) else read_boxes(one) for one in several]
    if model.preprocess is not None:
        raise UsageError(
            "this network has a preprocess of its own: where a box of the photo lies in its input is unknown."
        )
    objects = [one for annotations in read for one in annotations.objects]
    if data.root is None:
        raise UsageError("boxes are matched to the files of images; this data set has none: give a folder or a table.")
    paths = [Path(sample.name) for sample in data.samples]
    images = match_objects(objects, paths)
    of: dict[int, list[MarkedObject]] = {}
    for one in objects:
        if one.file in images and one.box is not None:
            of.setdefault(images[one.file], []).append(one)
    if not of:
        raise UsageError("in none of the images anything is marked: leave the boxes out.")
    return Marked(of, [dict(skip) for annotations in read for skip in annotations.skipped])


def outside_fact(candidate: Candidate, objects: Tensor | None) -> list[str]:
    """How much of a mark or a place lies outside of what people marked (N, H, W), in the images that show both."""
    if objects is None or (candidate.where is None and candidate.boxes is None):
        return []
    shares = []
    for i in (candidate.shows & objects.flatten(1).any(1)).nonzero().flatten().tolist():
        corners = candidate.where if candidate.boxes is None else [round(v) for v in candidate.boxes[i].tolist()]
        assert corners is not None, "it has a place"
        top, left, bottom, right = corners
        part = objects[i, max(top, 0) : bottom, max(left, 0) : right]
        if part.numel():
            shares.append(1 - float(part.double().mean()))
    if not shares:
        return []
    mean = 100 * sum(shares) / len(shares)
    return [
        f"{mean:.0f} % of it lies outside of the marked object, in the {len(shares)} images that show it and have one"
    ]


def mass_outside(maps: Tensor, objects: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) share of each map's mass, sum of |map|, outside of the objects (N, H, W), and their share of the picture.

    NaN for an image without an object or without a map. A map that is the same everywhere has as much outside as there is.
    """
    marked = objects.flatten(1).any(1)
    size = (objects.shape[1], objects.shape[2])
    weights = resize(maps.abs().double(), size)
    outside = (weights * ~objects).flatten(1).sum(1) / weights.flatten(1).sum(1)
    area = (~objects).flatten(1).double().mean(1)
    known = marked & outside.isfinite()
    nothing = torch.full_like(outside, torch.nan)
    return torch.where(known, outside, nothing), torch.where(known, area, nothing)


def outside_record(maps: Mapping[str, Tensor], objects: Tensor, scenes: Tensor, unused: Sequence[Skip]) -> Record:
    """Per method the share of its maps outside of the objects, beside the share of the picture that lies there."""
    found: Record = {"n": int(objects.flatten(1).any(1).sum()), "unused": list(unused), "outside": {}}
    for name, values in maps.items():
        share, area = (interval(one, scenes.tolist()).to_dict() for one in mass_outside(values, objects))
        found["outside"][name] = {"map": share, "picture": area}
    return found


def outside_queue(maps: Mapping[str, Tensor], objects: Tensor, paths: Sequence[str], most: int) -> list[Skip]:
    """Images whose map has more of its mass outside of the object than a map that is the same everywhere, the worst first."""
    name, values = next(iter(maps.items()))
    share, area = mass_outside(values, objects)
    beyond = (share - area).nan_to_num(-1)
    worst = [i for i in beyond.argsort(descending=True).tolist() if float(beyond[i]) > 0]
    return [
        {
            "path": paths[i],
            "reason": f"{100 * float(share[i]):.0f} % of {name} lies outside of the marked object, which leaves "
            f"{100 * float(area[i]):.0f} % of the picture",
        }
        for i in worst[:most]
    ]
