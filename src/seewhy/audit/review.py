"""What a person should look at, and how the model does on parts of the data set."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from seewhy.audit.examined import Examined
from seewhy.audit.findings import MOST_VALUES
from seewhy.audit.mistakes import alike_mistakes, features_under, mistakes_in_words
from seewhy.audit.objects import outside_queue
from seewhy.audit.stream import Row
from seewhy.data.dataset import DataSet
from seewhy.intervals import interval, proportion
from seewhy.ledger import Ledger
from seewhy.model import VisionModel
from seewhy.similarity import rank_correlation

QUEUE = 50  # images in the review queue
EACH = 10  # for each reason
Record = dict[str, Any]


def review_queue(
    model: VisionModel, e: Examined, maps: Mapping[str, Tensor], kind: str, ledger: Ledger
) -> list[Record]:
    """Explained images to look at: no honest map, much of it outside of the object, methods that disagree, and mistakes.

    Of these first the groups that look at the same thing, then the surest ones.
    """
    rows, paths = [e.rows[i] for i in e.explained], [e.paths[i] for i in e.explained]
    found: list[Record] = []
    for name, values in maps.items():
        empty = values.isnan().flatten(1).any(1).nonzero().flatten().tolist()
        found += [{"path": paths[i], "reason": f"{name} has no map that can be trusted here"} for i in empty[:EACH]]
    if e.objects is not None:
        found += outside_queue(maps, e.objects[e.explained], paths, EACH)
    several = list(maps)
    if len(several) > 1:
        a, b = (maps[name] for name in several[:2])
        known = ~(a.isnan().flatten(1).any(1) | b.isnan().flatten(1).any(1))
        index = known.nonzero().flatten()
        if len(index):
            alike = rank_correlation(a[index], b[index])
            for place in alike.argsort()[:EACH].tolist():
                said = f"{several[0]} and {several[1]} disagree most here: rank correlation {float(alike[place]):.2f}"
                found.append({"path": paths[int(index[place])], "reason": said})
    features = features_under(model, e, maps, ledger)
    if features is not None:
        labels, right = zip(*(e.strata[i] for i in e.explained), strict=True)
        groups, chance = alike_mistakes(features, ~torch.tensor(right), e.held.scenes[e.explained], labels)
        found += mistakes_in_words(groups[:EACH], chance, paths)
    if kind == "score":
        wrong = sorted(range(len(rows)), key=lambda i: -_error(rows[i]))[:EACH]
        found += [{"path": paths[i], "reason": f"the largest errors: {_error(rows[i]):.3g} off"} for i in wrong]
    else:
        wrong = [i for i, row in enumerate(rows) if row.content["right"] is False]
        wrong.sort(key=lambda i: -float(rows[i].content["probability"] or 0))
        for i in wrong[:EACH]:
            content = rows[i].content
            said = (
                f"labelled {content['label']}, predicted {content['predicted']} with p = {content['probability']:.2f}"
            )
            found.append({"path": paths[i], "reason": said})
    return found[:QUEUE]


def _error(row: Row) -> float:
    return abs(float(row.content["predicted"]) - float(row.content["label"]))


def associations(rows: Sequence[Row], data: DataSet) -> Iterator[Record]:
    """Per value of every metadata column: accuracy, or mean score and mean error, with n and 95 % interval."""
    columns = sorted({name for sample in data.samples for name in sample.metadata})
    for column in columns:
        values: dict[str, list[Row]] = {}
        for row in rows:
            value = row.content["metadata"].get(column)
            if value is not None:
                values.setdefault(value, []).append(row)
        if len(values) > MOST_VALUES:
            continue
        for value, own in sorted(values.items()):
            if data.kind == "score":
                mean = interval([float(row.content["predicted"]) for row in own])
                error = interval([_error(row) for row in own])
                yield {
                    "column": column,
                    "value": value,
                    "n": len(own),
                    "score": mean.to_dict(),
                    "error": error.to_dict(),
                }
            else:
                right = proportion([float(bool(row.content["right"])) for row in own])
                yield {"column": column, "value": value, "n": len(own), "accuracy": right.to_dict()}


def mean_maps(maps: Mapping[str, Tensor], strata: Sequence[tuple[str, bool]], ledger: Ledger) -> Iterator[Record]:
    """Per class (or quarter of the score), right and wrong, the mean of |map|, each map of sum 1."""
    for method, values in maps.items():
        size = values.abs().flatten(1).sum(1).clamp_min(1e-12).view(-1, 1, 1)
        share = values.abs() / size
        for name, right in sorted(set(strata)):
            own = torch.tensor([one == (name, right) for one in strata]) & ~values.isnan().flatten(1).any(1)
            if int(own.sum()):
                kept = ledger.keep(share[own].mean(0).numpy())
                yield {"name": name, "right": right, "n": int(own.sum()), "method": method, "map": kept}
