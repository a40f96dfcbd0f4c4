"""Mistakes that look at the same thing: wrong answers whose features under the map are alike, in different scenes."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from torch import Tensor

from seewhy.audit.examined import Examined
from seewhy.audit.patterns import units_of
from seewhy.errors import RefusalError
from seewhy.explanation import checked_question
from seewhy.identity import digest, identity
from seewhy.ledger import Ledger
from seewhy.model import VisionModel

FEWEST = 3  # scenes of a group; right answers of its label
CHANCE = 0.99  # of pairs of a mistake and a right answer of the same label, which two mistakes must be nearer than


def features_under(model: VisionModel, e: Examined, maps: Mapping[str, Tensor], ledger: Ledger) -> Tensor | None:
    """(M, channels): the default layer's mean activation under |map| of each explained image; None without such a layer.

    NaN where there is no map. Kept in the ledger, so that the same images are asked only once.
    """
    method, values = next(iter(maps.items()))
    x, sha = e.held.images[e.explained], model.fingerprint()
    content = {
        "model_sha256": sha,
        "pixels_sha256": digest(x),
        "map_sha256": digest(values),
        "method": method,
        "n": len(x),
    }
    key = identity(content)
    record = ledger.find("feature", key)
    if record is None:
        question = checked_question(model, None, 1, x.shape[1:])
        try:
            layer = model.default_layer(question, x.shape[1:])
        except RefusalError:
            return None

        def run(part: slice) -> Tensor:
            pixels = x[part].float() / 255
            (cells,), _ = model.activations(pixels, question, torch.arange(len(pixels)), [layer])
            weight = torch.nn.functional.adaptive_avg_pool2d(values[part].abs(), (cells.shape[2], cells.shape[3])).to(
                cells
            )
            share = weight / weight.flatten(1).sum(1).clamp_min(1e-12).view(-1, 1, 1)
            return (cells * share[:, None]).sum((2, 3)).float().cpu()

        with model.guarded(), torch.no_grad():
            found = torch.cat(model.in_batches(len(x), x.shape[1:], run))
        name = ledger.keep(found.numpy())
        record = ledger.append("feature", key, {**content, "layer": layer.name, "values": name})
    return torch.from_numpy(ledger.array(record.content["values"]).copy())


def alike_mistakes(
    features: Tensor, wrong: Tensor, scenes: Tensor, labels: Sequence[str]
) -> tuple[list[list[int]], float]:
    """Groups of mistakes whose features (M, channels) correlate, the largest first, and what chance reaches.

    Features count as what sets an image apart from the right answers of its label, in their standard deviations. wrong: (M,)
    bool. Average linkage, cut where two mistakes are no nearer than 99 % of pairs of a mistake and a right answer of the same
    label and another scene; a group has mistakes of three scenes at least.
    """
    of = torch.tensor([sorted(set(labels)).index(one) for one in labels])
    known = ~features.isnan().any(1)
    units = torch.zeros_like(features)
    for label in range(len(set(labels))):
        right = features[(of == label) & ~wrong & known]
        if len(right) < FEWEST:
            known &= of != label
            continue
        apart = (features - right.mean(0)) / right.std(0).clamp_min(1e-6)
        units[of == label] = units_of(apart[of == label])
    left, right = ((chosen & known).nonzero().flatten() for chosen in (wrong, ~wrong))
    pairs = (scenes[left][:, None] != scenes[right][None]) & (of[left][:, None] == of[right][None])
    if len(left) < FEWEST or not bool(pairs.any()):
        return [], float("nan")
    chance = float(np.quantile((units[left] @ units[right].T)[pairs].numpy(), CHANCE))
    distance = (1 - units[left] @ units[left].T).double().clamp_min(0)
    tree = linkage(squareform(((distance + distance.T) / 2).fill_diagonal_(0).numpy(), checks=False), "average")
    cluster = fcluster(tree, 1 - chance, "distance")
    groups = [left[torch.from_numpy(cluster == k)].tolist() for k in np.unique(cluster)]
    kept = [group for group in groups if len({int(scenes[i]) for i in group}) >= FEWEST]
    return sorted(kept, key=lambda group: (-len(group), group)), chance


def mistakes_in_words(groups: Sequence[Sequence[int]], chance: float, paths: Sequence[str]) -> list[dict[str, str]]:
    """An entry of the review queue for the first mistake of each group."""
    found = []
    for group in groups:
        others = ", ".join(paths[i] for i in group[1:4]) + (" ..." if len(group) > 4 else "")
        reason = (
            f"one of {len(group)} mistakes that look at the same thing, with {others}: what the network sees under their "
            f"maps is more alike than that of a mistake and a right answer of its label in 99 of 100 pairs (correlation "
            f"{chance:.2f})"
        )
        found.append({"path": paths[group[0]], "reason": reason})
    return found
