"""Which detection is asked about, which box it is in the clean image, and what a later output says of that box."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from seewhy.errors import UsageError
from seewhy.target import rows as per_image
from seewhy.target.outputs import Scale, is_detections, on_scale

AXES = {"rank": 1, "box": 2, "query": 1, "confidence": 1, "rival": 1}
IDENTICAL = 0.999  # an intersection over union above this is the same box


@dataclass(frozen=True)
class Boxes:
    """The rank-th detection of each image by score, if it reaches the threshold; the rest is known once it is settled."""

    rank: Tensor  # () or (N,): 0 is the most certain
    threshold: float
    classes: int | None = None  # that the detector knows; None: as many as its table has, less "no object"
    box: Tensor | None = None  # (N, 4): x0, y0, x1, y1 in input pixels; in fractions where the network says fractions
    query: Tensor | None = None  # (N,): of a DETR-like network
    confidence: Tensor | None = None  # (N,): of that detection; -1 where there are not so many
    rival: Tensor | None = None  # (N,): largest IoU with a more certain detection of the same label

    def settle(self, outputs: Any, rows: Tensor) -> tuple["Boxes", Tensor, Tensor]:
        """The box, the label (R,) and whether it reaches the threshold (R,), on clean outputs."""
        ranks = per_image.at(self.rank, rows)
        if is_detections(outputs):
            found = [_ranked(_checked(one), int(rank)) for one, rank in zip(outputs, ranks, strict=True)]
            box, label, confidence, rival = (torch.stack(values) for values in zip(*found, strict=True))
            settled = replace(self, box=box, confidence=confidence, rival=rival)
        else:
            logits, boxes = _queries(outputs)
            p, labels = self._probabilities(logits).max(2)
            if int(ranks.max()) >= p.shape[1]:
                raise UsageError(
                    f"box({int(ranks.max())}): this network answers with {p.shape[1]} boxes, 0 to {p.shape[1] - 1}."
                )
            row = torch.arange(len(p), device=p.device)
            query = p.argsort(dim=1, descending=True, stable=True)[row, ranks]
            label, confidence = labels[row, query], p[row, query]
            settled = replace(self, box=_corners(boxes[row, query]), query=query, confidence=confidence)
        return settled, label, ~(confidence < self.threshold)  # NaN is no certainty that nothing is there

    def values(self, outputs: Any, rows: Tensor, label: Tensor, scale: Scale) -> Tensor:
        """Per row (R,): of lists max IoU(box, settled box) score over boxes of that label (0 if none), as in D-RISE;
        of DETR-like tables what the settled query says of that label.
        """
        assert self.box is not None, "settle() comes before the first call"
        if self.query is not None:
            logits, _ = _queries(outputs)
            row, query = torch.arange(len(logits), device=logits.device), per_image.at(self.query, rows)
            said = logits[row, query]
            return on_scale(said, scale, "multiclass" if self._has_no_object(logits) else "multilabel")[row, label]
        if scale not in ("probability", "output"):
            raise UsageError(f"this detector gives scores, not logits: sw.target.box has no scale {scale!r} here.")
        assert self.rival is not None, "settle() comes before the first call"
        given = (_checked(one) for one in outputs)
        asked = zip(given, self.box.to(rows.device)[rows], label, per_image.at(self.rival, rows), strict=True)
        return torch.stack([_score(*one) for one in asked])

    def in_pixels(self, size: Sequence[int]) -> "Boxes":
        """With the box in input pixels, for an input of size (height, width)."""
        assert self.box is not None, "settle() comes before"
        if self.query is None:
            return self
        height, width = size
        return replace(self, box=self.box * self.box.new_tensor([width, height, width, height]))

    def _has_no_object(self, logits: Tensor) -> bool:
        columns = logits.shape[2]
        if self.classes is not None and columns not in (self.classes, self.classes + 1):
            raise UsageError(
                f"{self.classes} classes are named, but each query of this network has {columns} scores: name {columns} "
                f'(a sigmoid each), or {columns - 1} (a softmax, the last score is "no object").'
            )
        return columns != self.classes

    def _probabilities(self, logits: Tensor) -> Tensor:
        """(R, queries, classes) without "no object": DETR's softmax, or RT-DETR's sigmoids."""
        logits = logits.detach().float()
        return logits.softmax(2)[..., :-1] if self._has_no_object(logits) else logits.sigmoid()


def every_score(outputs: Any) -> Tensor:
    """Sum of all scores of each row, (R,): what a detector says of an image on the whole."""
    if is_detections(outputs):
        return torch.stack([_checked(one)["scores"].sum() for one in outputs])
    total: Tensor = _queries(outputs)[0].amax(2).sum(1)
    return total


def _checked(one: Mapping[str, Any]) -> Mapping[str, Any]:
    if "labels" not in one:
        raise UsageError(f"a detection holds boxes, labels and scores; this network's hold {', '.join(map(str, one))}.")
    return one


def _ranked(one: Mapping[str, Any], rank: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Box, label, score, and largest IoU with a more certain box of the same label; a score of -1 if there is none."""
    scores, boxes, labels = (one[name].detach() for name in ("scores", "boxes", "labels"))
    scores, boxes, labels = scores.float(), boxes.float(), labels.long()
    if rank >= len(scores):
        none = scores.new_zeros(())
        return none.expand(4), torch.zeros((), dtype=torch.long, device=scores.device), none - 1, none
    order = scores.argsort(descending=True, stable=True)
    box, label = boxes[order[rank]], labels[order[rank]]
    above = order[:rank][labels[order[:rank]] == label]
    rivals = torch.cat([_overlap(boxes[above], box), scores.new_zeros(1)])
    return box, label, scores[order[rank]], rivals.max().clamp_max(IDENTICAL)


def _score(one: Mapping[str, Any], box: Tensor, label: Tensor, rival: Tensor) -> Tensor:
    """What is left of one box: 0 where no box of its label overlaps it more than its rival does."""
    scores: Tensor = one["scores"]
    overlap = _overlap(one["boxes"].detach().float(), box) * (one["labels"] == label)
    same = overlap > rival
    return (overlap * scores)[same].max() if bool(same.any()) else scores[:0].sum()  # 0 that is still part of the graph


def _overlap(boxes: Tensor, box: Tensor) -> Tensor:
    """Intersection over union of boxes (n, 4) with a box (4,): (n,) in [0, 1]; exactly 1 with itself."""
    low, high = torch.maximum(boxes[:, :2], box[:2]), torch.minimum(boxes[:, 2:], box[2:])
    shared = (high - low).clamp_min(0).prod(1)
    areas, area = (boxes[:, 2:] - boxes[:, :2]).prod(1), (box[2:] - box[:2]).prod()
    return shared / (areas + area - shared).clamp_min(torch.finfo(shared.dtype).tiny)


def _queries(outputs: Any) -> tuple[Tensor, Tensor]:
    """(R, queries, columns) logits and (R, queries, 4) boxes (center, size; in fractions of the input)."""
    names, mapping = ("logits", "pred_boxes"), isinstance(outputs, Mapping)
    logits, boxes = (outputs.get(name) if mapping else getattr(outputs, name, None) for name in names)
    if not isinstance(logits, Tensor) or not isinstance(boxes, Tensor):
        kind = type(outputs).__name__
        raise UsageError(
            "sw.target.box reads detections: a list with boxes, labels and scores per image (torchvision), or an output "
            f"with logits and pred_boxes (DETR); this network returns {kind}."
        )
    return logits, boxes


def _corners(boxes: Tensor) -> Tensor:
    center, size = boxes.detach().float().chunk(2, -1)
    return torch.cat([center - size / 2, center + size / 2], -1)
