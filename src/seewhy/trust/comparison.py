"""Methods measured side by side on one model and these images: the field's comparison table, with numbers of your own."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats
from torch import nn

from seewhy import runfolder
from seewhy.errors import RefusalError, UsageError, real_number
from seewhy.explanation import rows_per_image, seconds_per_row
from seewhy.explanation.inputs import Images, read_inputs
from seewhy.model import VisionModel
from seewhy.registry import MethodInfo, find_method
from seewhy.trust.card import Settings, TrustCard, card_of, examined, prepared
from seewhy.trust.setup import Setup
from seewhy.wrapping import bare

COMPARED = ("resolution", "class_discrimination", "completeness", "model_randomization", "cost", "faithfulness")
METHODS_BY_DEFAULT = (
    "gradient",
    "smooth_grad",
    "guided_backprop",
    "integrated_gradients",
    "grad_cam",
    "occlusion",
    "random_map",
    "edge_map",
)
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Comparison:
    """A trust card for each method, the methods that were left out and why, and how far the faithfulness numbers disagree."""

    cards: tuple[TrustCard, ...]
    left_out: dict[str, str]  # method -> why
    disagreement: dict[str, float]  # "metric a / metric b" -> Kendall correlation of their orders of the methods
    setup: Setup | None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "cards": [card.to_dict() for card in self.cards],
            "setup": None if self.setup is None else self.setup.to_dict(),
            "left_out": self.left_out,
            "disagreement": {pair: value if np.isfinite(value) else None for pair, value in self.disagreement.items()},
        }

    def __str__(self) -> str:
        lines = [str(card) for card in self.cards]
        lines += [f"{method}: left out, {why}" for method, why in self.left_out.items()]
        lines.append(self.sentence)
        return "\n\n".join(lines)

    __repr__ = __str__

    @property
    def sentence(self) -> str:
        """How far the numbers agree on an order of the methods; there is never one winner."""
        known = {pair: value for pair, value in self.disagreement.items() if np.isfinite(value)}
        if not known:
            return "Fewer than three methods have two faithfulness numbers: their orders cannot be compared."
        pair, least = min(known.items(), key=lambda item: item[1])
        return (
            f"There is no one winner: of {len(known)} pairs of faithfulness numbers the order of the methods agrees least "
            f"between {pair} (Kendall correlation {least:.2f})."
        )


def compare(
    model: VisionModel | nn.Module,
    images: Images,
    methods: Sequence[str | MethodInfo] | None = None,
    budget: float | None = None,
    *,
    labels: Sequence[int | str] | None = None,
    target: Any = None,
    settings: Settings | None = None,
    params: Mapping[str, Mapping[str, Any]] | None = None,
    anyway: bool = False,
    seed: int = 0,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """The method-comparison table (resolution, class, completeness, sanity, cost, faithfulness) measured on these images.

    methods: names; None is a selection of every family, with two controls. budget: seconds that one map may take, by a
    forecast from the method's rows and a timed row of this network; methods above it are listed and left out, as are those
    that this network refuses, with the reason. params: per method its own parameters, {"rise": {"samples": 1000}}. The other
    arguments as for `check`. No method is named the winner: at least two fills and two protocols, and how far the orders in
    which they put the methods agree (Kendall's tau-b; Tomsett 2020: it can be reversed).
    """
    infos = [find_method(name) for name in (METHODS_BY_DEFAULT if methods is None else methods)]
    if not infos:
        raise UsageError("methods=[] leaves nothing to compare.")
    model = model if isinstance(model, VisionModel) else bare(model)
    if budget is not None:
        real_number("budget", budget, at_least=0, above=True)
    x, sources = read_inputs(model, images)
    folder = None if out is None else runfolder.open_folder(out)
    setup = examined(model, x, labels, anyway=anyway)
    cards: list[TrustCard] = []
    left_out: dict[str, str] = {}
    over = {} if budget is None else _over_budget(model, infos, x.shape[1:], params or {}, budget)
    for done, info in enumerate(infos):
        if progress is not None:
            progress(info.title, done, len(infos))
        if info.name in over:
            left_out[info.name] = over[info.name]
            continue
        own = dict((params or {}).get(info.name, {}))
        asked = None if info.class_agnostic else target
        try:
            wanted = prepared(info, COMPARED, seed, settings)
            cards.append(card_of(model, x, sources, info, asked, None, seed, own, wanted, None, folder))
        except RefusalError as error:
            left_out[info.name] = str(error)
    return Comparison(tuple(cards), left_out, _disagreement(cards), setup)


def _over_budget(
    model: VisionModel,
    infos: Sequence[MethodInfo],
    shape: Sequence[int],
    params: Mapping[str, Mapping[str, Any]],
    budget: float,
) -> dict[str, str]:
    """Of the methods of which a map takes longer, what it takes; one that is refused says so when it is run."""
    each = {gradient: seconds_per_row(model, shape, gradient=gradient) for gradient in (False, True)}
    found = {}
    for info in infos:
        try:
            rows = rows_per_image(model, info, shape, None, None, dict(params.get(info.name, {})))
        except RefusalError:
            continue
        seconds = rows[0] * each[False] + rows[1] * each[True]
        if seconds > budget:
            found[info.name] = (
                f"a map takes about {seconds:.2g} s (at most {rows[0]} forward and {rows[1]} gradient rows), the budget is "
                f"{budget:g} s"
            )
    return found


def _disagreement(cards: Sequence[TrustCard]) -> dict[str, float]:
    """Kendall's tau-b between the orders in which two faithfulness numbers put the methods, best first."""
    columns: dict[str, dict[str, float]] = {}
    for card in cards:
        for row in card.rows.values():
            for score in row.scores if row.check == "faithfulness" else ():
                if score.direction != "neither" and np.isfinite(score.interval.value):
                    better = score.interval.value if score.direction == "higher" else -score.interval.value
                    columns.setdefault(score.name, {})[card.about["method"]] = better
    found = {}
    names = sorted(columns)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            both = sorted(columns[a].keys() & columns[b].keys())
            if len(both) > 2:
                tau = stats.kendalltau([columns[a][m] for m in both], [columns[b][m] for m in both]).statistic
                found[f"{a} / {b}"] = float(tau)
    return found
