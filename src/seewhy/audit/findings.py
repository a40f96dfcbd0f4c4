"""What was tried, as sentences that an engineer can act on, with their numbers."""

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from scipy import stats
from torch import Tensor

from seewhy.audit.candidate import KINDS, Candidate
from seewhy.audit.confirm import LEVEL, SMALL, Trial, interval_of, probability_changes
from seewhy.data.geometry import Geometry
from seewhy.intervals import Interval
from seewhy.model import VisionModel

MOST_VALUES = 30  # of a column of metadata; more are a name or a time, not what images have in common
SHOWN_OUTPUTS = 5  # of a finding that moves many
SIGNIFICANT_DIGITS = 3
DOING = {  # what was done to images without it, and to images with it
    "local_pattern": ("laid over", "taken off"),
    "place": ("copied into", "exchanged in"),
    "background": ("put around the middle of", "exchanged in"),
    "whole_image": ("given to", "taken from"),
}
UNRELATED_WORDS = {
    "local_pattern": "pieces of pictures of the same size",
    "place": "exchanges by shuffled labels",
    "background": "exchanges by shuffled labels",
    "whole_image": "changes fitted to exchanged labels",
}
Record = dict[str, Any]


def finding_of(
    model: VisionModel,
    trial: Trial,
    names: Sequence[str],
    paths: Sequence[str],
    geometry: Geometry | None,
    facts: Sequence[str],
) -> Record:
    """One trial as it stands in findings.json: confirmed with the outputs that it moves, refuted, or untested.

    geometry: from the model's input to the photo in which the place is told. facts: what else is suspicious of it.
    """
    candidate, moved = trial.candidate, trial.confirmed()
    doubt = None if moved or trial.why_untested else trial.removal_moves()
    status = "confirmed" if moved else "untested" if trial.why_untested or doubt is not None else "refuted"
    shown = moved[:SHOWN_OUTPUTS]
    if not moved and not trial.why_untested:
        shown = [int(trial.effect.abs().argmax()) if doubt is None else doubt]
    effects = [one for k in shown for one in _effects(model, trial, k, names)]
    if moved and trial.held.labels is not None:
        effects.append(_effect_on_labels(trial))
    p = min((float(trial.p_adjusted[k]) for k in shown), default=math.nan)
    size = trial.held.images.shape[2:]
    found: Record = {
        "id": _id(candidate, [names[k] for k in shown]),
        "kind": candidate.kind,
        "name": candidate.name,
        "outputs": [names[k] for k in shown],
        "where": None if candidate.where is None else list(in_photo(candidate.where, (size[0], size[1]), geometry)),
        "status": status,
        "effect": effects,
        "p_adjusted": p if math.isfinite(p) else None,
        "suspicion": [*candidate.suspicion, *facts],
        "images": [paths[i] for i in candidate.shows.nonzero().flatten().tolist()],
        "details": dict(candidate.details),
        "n_shows": int(candidate.shows.sum()),
    }
    return {**found, "sentence": _sentence(found, trial)}


def _effects(model: VisionModel, trial: Trial, k: int, names: Sequence[str]) -> list[Record]:
    """What pasting, its control and removing did to one output, in logits or the score, and as a probability."""
    unit = "score" if model.task == "regression" else "logit"
    removed = _best_removal(trial, k)
    rows = [_effect(names[k], unit, trial, k, trial.pasted, trial.control, removed)]
    likely = [
        None if changes is None or not len(index) else probability_changes(model, trial.held, index, changes)
        for index, changes in ((trial.plain, trial.pasted), (trial.plain, trial.control), (trial.marked, removed))
    ]
    if likely[0] is not None and likely[1] is not None:
        column = min(k, likely[0].shape[1] - 1)
        rows.append(_effect(names[k], "probability", trial, column, likely[0], likely[1], likely[2]))
    return rows


def _effect_on_labels(trial: Trial) -> Record:
    """What it takes from, or gives to, the label of each image: pooled over classes."""
    labels = trial.held.labels
    assert labels is not None, "asked for only where there are labels"
    own = {"pasted": (trial.pasted, trial.plain, trial.scenes)}
    removed = _best_removal(trial, trial.confirmed()[0])
    if removed is not None and len(removed):
        own["removed"] = (removed, trial.marked, trial.scenes_marked)
    said = {
        name: _numbers(interval_of(change.gather(1, labels[index, None])[:, 0], scenes))
        for name, (change, index, scenes) in own.items()
    }
    return {
        "output": "the image's own label",
        "unit": "logit",
        "n": len(trial.pasted),
        "control": None,
        "removed": None,
        **said,
    }


def _effect(
    output: str, unit: str, trial: Trial, k: int, pasted: Tensor, control: Tensor, removed: Tensor | None
) -> Record:
    found: Record = {
        "output": output,
        "unit": unit,
        "n": len(pasted),
        "pasted": _numbers(interval_of(pasted[:, k], trial.scenes)) if len(pasted) else None,
        "control": _numbers(interval_of(control[:, k], trial.scenes)) if trial.has_control else None,
        "removed": None
        if removed is None or not len(removed)
        else _numbers(interval_of(removed[:, k], trial.scenes_marked)),
    }
    if unit != "probability":
        found["unrelated"] = {"largest": _round(float(trial.chance()[k])), "pieces": len(trial.unrelated)}
        found["fills"] = {
            name: _numbers(interval_of(change[:, k], trial.scenes_marked)) for name, change in trial.removed.items()
        }
    return found


def _best_removal(trial: Trial, k: int) -> Tensor | None:
    """By the fill that undoes most: another one may leave something behind."""
    sign = -float(trial.effect[k].sign())
    return max(trial.removed.values(), key=lambda change: sign * float(change[:, k].mean()), default=None)


def _numbers(found: Interval) -> Record:
    return {
        name: None if v is None or isinstance(v, int) else _round(v)
        for name, v in found.to_dict().items()
        if name != "n"
    } | {
        "n": found.n,
        "clusters": found.clusters,
    }


def _round(value: float) -> float:
    return float(f"{value:.{SIGNIFICANT_DIGITS + 1}g}")


def _sentence(found: Record, trial: Trial) -> str:
    candidate = trial.candidate
    if trial.why_untested:
        return f"Whether the model relies on {candidate.name} could not be tested: {trial.why_untested}."
    effect = found["effect"][0]
    pasted, removed = effect["pasted"], effect["removed"]
    output, n = effect["output"], pasted["n"]
    amount = f"{pasted['value']:+.3g} {_unit(effect)}{_range(pasted)}"
    done, undone = DOING[candidate.kind]
    said = (
        f"{done} {n} held-out images it changes {output} by {amount}, {_beside(effect['control'])}where "
        f"{effect['unrelated']['pieces']} unrelated {UNRELATED_WORDS[candidate.kind]} change it by "
        f"{effect['unrelated']['largest']:.3g} {'more ' if effect['control'] else ''}at most"
    )
    if removed is not None:
        said += f"; {undone} {removed['n']}, by {removed['value']:+.3g}{_range(removed)}"
    if found["status"] == "untested":
        return f"Whether the model relies on {candidate.name} is not settled, as it could not be rebuilt: {said}."
    k = trial.effect.abs().argmax()
    if found["status"] == "refuted" and bool(trial.small()[k]):
        return f"The model hardly relies on {candidate.name}, surely by less than {SMALL} of {output}'s own spread: {said}."
    if found["status"] == "refuted":
        return f"The model does not rely on {candidate.name}, though it was found: {said}."
    return f"The model relies on {candidate.name}: {said}."


def _beside(control: Record | None) -> str:
    return "" if control is None else f"the same of images without it by {control['value']:+.3g}, "


def _unit(effect: Record) -> str:
    return {"logit": "logits", "score": "points", "probability": "in probability"}[effect["unit"]]


def _range(numbers: Record) -> str:
    return "" if numbers["low"] is None else f" [{numbers['low']:.3g}, {numbers['high']:.3g}]"


def _id(candidate: Candidate, outputs: Sequence[str]) -> str:
    return _short_hash(f"{candidate.kind} {sorted(outputs)[:1]} ".encode() + candidate.appearance)


def _short_hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def in_photo(
    box: tuple[float, float, float, float], size: tuple[int, int], geometry: Geometry | None
) -> tuple[float, float, float, float]:
    """A box of the model's input (top, left, bottom, right) as x0, y0, x1, y1 in fractions of the upright photo."""
    top, left, bottom, right = box
    tall, wide = size
    if geometry is not None:
        top, left = geometry.to_photo(top, left)
        bottom, right = geometry.to_photo(bottom, right)
        tall, wide = geometry.photo
    x0, y0, x1, y1 = (min(1.0, max(0.0, v)) for v in (left / wide, top / tall, right / wide, bottom / tall))
    return round(x0, 4), round(y0, 4), round(x1, 4), round(y1, 4)


def merged(found: Sequence[tuple[Record, Trial]]) -> list[tuple[Record, Trial]]:
    """One finding for what several trials say: the strongest of a kind and place, or of a statistic; mirrors go into it.

    Each with the trial that it tells, and with an id of its own.
    """
    kept: list[tuple[Record, Trial]] = []
    for one, trial in sorted(found, key=lambda pair: _strength(pair[0]), reverse=True):
        same = next((other for other, _ in kept if one["status"] == other["status"] and _same(one, other)), None)
        if same is None:
            kept.append((one, trial))
        else:
            same["outputs"] += [name for name in one["outputs"] if name not in same["outputs"]]
            same["details"].setdefault("also", []).append(one["sentence"])
    _tell_apart([one for one, _ in kept])
    return kept


def _tell_apart(found: Sequence[Record]) -> None:
    """Other ids for findings that look alike and move the same output: by their names, then in the order of their images.

    All of them get another one, so that what somebody accepted while both were there is not taken for the one that is left.
    """
    often = Counter(one["id"] for one in found)
    taken: Counter[str] = Counter()
    for one in sorted(found, key=lambda one: list(one["images"])):
        if often[one["id"]] > 1:
            said = f"{one['id']} {one['name']}"
            taken[said] += 1
            one["id"] = _short_hash(f"{said} {taken[said]}".encode())


def _strength(found: Record) -> tuple[bool, bool, float]:
    effect = found["effect"][0]["pasted"] if found["effect"] else None
    return found["status"] == "confirmed", found["kind"] == "local_pattern", abs(effect["value"]) if effect else 0.0


def _same(a: Record, b: Record) -> bool:
    if a["kind"] == b["kind"] == "whole_image":
        return bool(a["details"].get("statistic") == b["details"].get("statistic"))
    if a["where"] is None or b["where"] is None:
        return False
    x0, y0, x1, y1 = (f(p, q) for f, p, q in zip((max, max, min, min), a["where"], b["where"], strict=True))
    shared = max(0.0, x1 - x0) * max(0.0, y1 - y0)
    smaller = min((w[2] - w[0]) * (w[3] - w[1]) for w in (a["where"], b["where"]))
    return bool(shared > 0.5 * smaller)


def detectable(trials: Sequence[Trial], names: Sequence[str], unit: str) -> Record:
    """Per kind the smallest effect that this many images would have shown: what unrelated changes reach."""
    found: Record = {}
    for kind in KINDS:
        tried = [t for t in trials if t.candidate.kind == kind and not t.why_untested and len(t.unrelated)]
        if tried:
            value, n = max((float(t.chance().max()), len(t.plain)) for t in tried)
            found[kind] = [{"value": _round(value), "unit": unit, "n": n, "outputs": len(names)}]
    return found


def facts_of_metadata(shows: Tensor, scenes: Tensor, metadata: Sequence[Mapping[str, str]]) -> list[str]:
    """With which values of the data set's columns a pattern goes, each a sentence with its p-value; most often none.

    Fisher's exact test, one-sided, at the level 0.05 after Bonferroni's correction for all values tried. Groups are counted,
    not images: those of a group that have the value count once, and show it where more than half of them do; so do those
    that do not have it. shows, scenes: (N,) of the examined images. A column of more than 30 values is a name or a time.
    """
    tried = []
    for column in sorted({name for one in metadata for name in one}):
        values = [one.get(column) for one in metadata]
        different = sorted({value for value in values if value is not None})
        for value in different if len(different) <= MOST_VALUES else ():
            own = torch.tensor([one == value for one in values])
            inside, outside = (_counted(shows[chosen], scenes[chosen]) for chosen in (own, ~own))
            if inside[1] and outside[1]:
                tried.append((f"{column} = {value}", inside, outside))
    what = "images" if len(set(scenes.tolist())) == len(scenes) else "groups"
    facts = []
    for said, (showing, n), (others, m) in tried:
        table = [[showing, n - showing], [others, m - others]]
        p = min(1.0, float(stats.fisher_exact(table, alternative="greater").pvalue) * len(tried))
        if p < LEVEL:
            facts.append(
                f"it goes with {said}: {showing} of its {n} examined {what} show it, {others} of the {m} others "
                f"(Fisher's exact test, p = {p:.2g} after correction for {len(tried)} values)"
            )
    return facts


def _counted(shows: Tensor, scenes: Tensor) -> tuple[int, int]:
    """How many groups show it in more than half of these images, and how many groups there are."""
    _, of = torch.unique(scenes, return_inverse=True)
    images = torch.bincount(of)
    return int((2 * torch.bincount(of[shows], minlength=len(images)) > images).sum()), len(images)
