"""Whether a model relies on what was found: pasted, removed, and compared with what has nothing of it.

On images that took no part in finding it. Two comparisons, and both must tell: image by image against its own control (a
paired t test over scenes, corrected by Holm for all candidates and outputs), and the mean effect against those of unrelated
pieces of pictures of the same size at the same place, each laid over the same images.
Of a cue of the whole image these are the changes that exchanged labels would have asked for. An effect that is surely small
beside what the output does from image to image is none to act on.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from seewhy.audit.candidate import Candidate, Edit, Said
from seewhy.audit.patterns import FEWEST_SCENES
from seewhy.intervals import Interval, interval
from seewhy.model import VisionModel
from seewhy.target import probabilities

LEVEL = 0.05
UNRELATED = 19  # controls: what beats all of them is at the 5 % level
SMALL = 0.2  # standard deviations of an output over images: a small effect (Cohen 1988, section 2.2.3)
MOST = 48  # images a side
MOST_UNRELATED = 24  # images that each unrelated piece is laid over
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Held:
    """The examined images and what the model says of them."""

    images: Tensor  # (N, C, H, W) uint8: what the model sees
    clean: Tensor  # (N, K) its outputs
    scenes: Tensor  # (N,) which share a scene
    confirming: Tensor  # (N,) bool: took no part in finding
    say: Said  # what the model says of pixels
    labels: Tensor | None = None  # (N,) the column of each image's own label; None: there is no one such column

    def pixels(self, index: Tensor) -> Tensor:
        """Images in [0, 1]."""
        return self.images[index].float() / 255


@dataclass
class Trial:
    """What pasting and removing one candidate did to every output; p-values are corrected over all trials later."""

    candidate: Candidate
    held: Held  # what it was tried on
    plain: Tensor  # indices of the images that it was pasted onto
    marked: Tensor  # indices of the images that it was removed from
    pasted: Tensor  # (n, K) changes of every output
    control: Tensor  # (n, K) the same by the paired control; zeros where there is none
    removed: dict[str, Tensor]  # fill -> (m, K)
    unrelated: Tensor  # (B, K) mean change by each unrelated piece
    scenes: Tensor  # (n,) of the plain images
    scenes_marked: Tensor
    why_untested: str = ""
    p: Floats = field(default_factory=lambda: np.ones(0))  # (K,) of the paired test
    p_adjusted: Floats = field(default_factory=lambda: np.ones(0))

    @property
    def effect(self) -> Tensor:
        """(K,) mean change by pasting beyond the paired control."""
        return _scene_mean(self.pasted - self.control, self.scenes)

    @property
    def has_control(self) -> bool:
        """Whether there is a control for each image, beside the unrelated pieces."""
        return bool(len(self.control)) and self.candidate.swapped is not None

    def chance(self) -> Tensor:
        """(K,) the largest mean change by any unrelated piece, beyond the paired control on the same images."""
        beside = self.control[:MOST_UNRELATED].mean(0)
        return (self.unrelated - beside).abs().amax(0)

    def small(self) -> NDArray[np.bool_]:
        """(K,) whether the effect is surely below a small one: its 95 % interval, in spreads of the output over images."""
        rows = _by_scene_all(self.pasted - self.control, self.scenes)
        error = rows.std(0, ddof=1) / np.sqrt(len(rows)) * stats.t.isf(0.025, len(rows) - 1)
        largest: Floats = np.abs(rows.mean(0)) + error
        return largest < SMALL * self.held.clean.std(0).numpy()

    def confirmed(self) -> list[int]:
        """The outputs that it moves, the strongest first."""
        if self.why_untested:
            return []
        effect = self.effect
        alone = _scene_mean(self.pasted, self.scenes)
        beyond = (effect.abs() > self.chance()).numpy() & ~self.small()
        passed = (self.p_adjusted < LEVEL) & beyond & (effect * alone > 0).numpy()
        for k in np.flatnonzero(passed):
            passed[k] = self._undone(int(k), float(effect[k]))
        toward = self.candidate.toward
        if toward is not None and not (passed[toward] and effect[toward] > 0):
            return []
        return sorted(np.flatnonzero(passed).tolist(), key=lambda k: -abs(float(effect[k])))

    def strength(self) -> float:
        """How much of what an output does it explains, put in and taken out alike; 0 where it moves none.

        The smaller of both effects, in spreads of the output over images: blur takes any fine texture out, and puts none in.
        """
        moved = self.confirmed()
        if not moved:
            return 0.0
        out = torch.stack([_scene_mean(change, self.scenes_marked).abs() for change in self.removed.values()]).amax(0)
        both = torch.minimum(self.effect.abs(), out) / self.held.clean.std(0).clamp_min(1e-12)
        return float(both[moved].max())

    def removal_moves(self) -> int | None:
        """An output that every fill moves the same way, beyond unrelated pieces, where pasting does not: nothing is refuted.

        What was pasted is an estimate of the mark; taking it off needs none.
        """
        scenes = len(set(self.scenes_marked.tolist()))
        if self.candidate.kind != "local_pattern" or scenes < FEWEST_SCENES or not self.removed:
            return None
        rows = [_by_scene_all(change, self.scenes_marked) for change in self.removed.values()]
        means = np.stack([one.mean(0) for one in rows])
        beyond = np.abs(means).min(0) > self.chance().numpy()
        sure = np.max([_p(one) for one in rows], axis=0) * means.shape[1] < LEVEL
        found = beyond & sure & (np.abs(np.sign(means).sum(0)) == len(means))
        return int(np.abs(np.where(found, means, 0)).min(0).argmax()) if found.any() else None

    def _undone(self, k: int, effect: float) -> bool:
        """Taking it away moves the output the other way, by one of the fills."""
        for change in self.removed.values():
            by_scene = _by_scene(change[:, k], self.scenes_marked)
            if np.sign(by_scene.mean()) == -np.sign(effect) and _p(by_scene[:, None])[0] < LEVEL:
                return True
        return not self.removed


def settled(model: VisionModel, table: Tensor) -> Tensor:
    """(n, K): logits above their own mean for one class of several (what they share moves no probability), else as given."""
    table = table.double()
    return table - table.mean(1, keepdim=True) if model.task == "multiclass" and table.shape[1] > 1 else table


def try_candidate(held: Held, candidate: Candidate, seed: int) -> Trial:
    """Paste it, remove it, and lay unrelated pieces over the same images; in all about 48 (2 + fills) + 19 * 24 rows."""
    free = held.confirming
    plain = _drawn((free & ~candidate.shows).nonzero().flatten(), held.scenes, MOST, seed)
    marked = _drawn((free & candidate.shows).nonzero().flatten(), held.scenes, MOST, seed)
    k = held.clean.shape[1]
    nothing = torch.zeros(0, k, dtype=torch.float64)
    trial = Trial(
        candidate, held, plain, marked, nothing, nothing, {}, nothing, held.scenes[plain], held.scenes[marked]
    )
    for index, what in ((plain, "are without it"), (marked, "show it")):
        scenes = len(set(held.scenes[index].tolist()))
        if scenes < FEWEST_SCENES:
            trial.why_untested = (
                f"{len(index)} held-out images of {scenes} groups {what}, {FEWEST_SCENES} groups are needed"
            )
            return trial
    trial.pasted = changed(held, plain, candidate.paste)
    swapped = candidate.swapped
    trial.control = torch.zeros_like(trial.pasted) if swapped is None else changed(held, plain, swapped)
    trial.removed = (
        {name: changed(held, marked, edit) for name, edit in candidate.remove.items()} if len(marked) else {}
    )
    some = plain[:MOST_UNRELATED]
    means = [changed(held, some, candidate.unrelated(b)).mean(0) for b in range(UNRELATED)]
    trial.unrelated = torch.stack(means)
    trial.p = _p(_by_scene_all(trial.pasted - trial.control, trial.scenes))
    return trial


def explained_away(held: Held, trials: Sequence[Trial]) -> Held:
    """The images with every mark that was tried, and all else that was confirmed, taken from those that show it.

    A mark that the model ignores goes, too: what lies around it goes with a label because of the mark.
    """
    images = held.images.clone()
    touched = torch.zeros(len(images), dtype=torch.bool)
    for trial in trials:
        ignored = trial.candidate.kind == "local_pattern" and not trial.why_untested
        if not (ignored or trial.confirmed()) or not trial.candidate.remove:
            continue
        edit = next(iter(trial.candidate.remove.values()))
        for part in torch.split(trial.candidate.shows.nonzero().flatten(), 64):
            images[part] = (edit(images[part].float() / 255, part) * 255).round().to(torch.uint8)
        touched |= trial.candidate.shows
    if not bool(touched.any()):
        return held
    clean = held.clean.clone()
    for part in torch.split(touched.nonzero().flatten(), 64):
        clean[part] = held.say(images[part].float() / 255)
    return replace(held, images=images, clean=clean)


def changed(held: Held, index: Tensor, edit: Edit) -> Tensor:
    """(n, K): by how much every output of these images changes under an edit."""
    parts = []
    for part in torch.split(index, 64):
        said = held.say(edit(held.pixels(part), part))
        parts.append(said - held.clean[part])
    return torch.cat(parts)


def correct(trials: Sequence[Trial]) -> None:
    """Holm's correction over every candidate and output that was tried."""
    tried = [trial for trial in trials if not trial.why_untested]
    if not tried:
        return
    p = np.concatenate([trial.p for trial in tried])
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1)
    at = 0
    for trial in tried:
        trial.p_adjusted = adjusted[at : at + len(trial.p)]
        at += len(trial.p)


def interval_of(changes: Tensor, scenes: Tensor) -> Interval:
    """Mean change with its 95 % interval over scenes."""
    return interval(changes, scenes.tolist())


def probability_changes(model: VisionModel, held: Held, index: Tensor, changes: Tensor) -> Tensor | None:
    """(n, K): the same changes as probabilities; None for a network without them."""
    before = probabilities(held.clean[index].float(), model.task)
    after = probabilities((held.clean[index] + changes).float(), model.task)
    return None if before is None or after is None else (after - before).double()


def _drawn(index: Tensor, scenes: Tensor, most: int, seed: int) -> Tensor:
    """At most so many of them, scene after scene, drawn by the seed."""
    generator = torch.Generator().manual_seed(seed)
    shuffled = index[torch.randperm(len(index), generator=generator)]
    taken: dict[int, int] = {}
    turn: list[tuple[int, int, int]] = []
    for i in shuffled.tolist():
        scene = int(scenes[i])
        taken[scene] = taken.get(scene, 0) + 1
        turn.append((taken[scene], len(turn), i))
    return torch.tensor([i for _, _, i in sorted(turn)[:most]], dtype=torch.long)


def _by_scene(values: Tensor, scenes: Tensor) -> Floats:
    return _by_scene_all(values[:, None], scenes)[:, 0]


def _by_scene_all(values: Tensor, scenes: Tensor) -> Floats:
    """Means of (n, K) over each scene: (S, K)."""
    _, at = torch.unique(scenes, return_inverse=True)
    count = int(at.max()) + 1
    sums = torch.zeros(count, values.shape[1], dtype=torch.float64).index_add_(0, at, values.double())
    means: Floats = (sums / torch.bincount(at, minlength=count)[:, None]).numpy()
    return means


def _scene_mean(values: Tensor, scenes: Tensor) -> Tensor:
    return torch.from_numpy(_by_scene_all(values, scenes).mean(0))


def _p(rows: Floats) -> Floats:
    """Two-sided p-value per column that the mean over scenes (S, K) is 0: Student's t; 1 where S < 3.

    Where every scene says the same number, it is 1 for 0 and 0 for any other.
    """
    if len(rows) < 3:
        return np.ones(rows.shape[1])
    mean, error = np.abs(rows.mean(0)), rows.std(0, ddof=1) / np.sqrt(len(rows))
    same = np.where(mean > 0, np.inf, 0.0)
    found: Floats = 2 * stats.t.sf(np.divide(mean, error, out=same, where=error > 0), len(rows) - 1)
    return found
