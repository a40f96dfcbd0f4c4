"""Numbers of the images that could be scored, as scores and curves over all images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from seewhy.checks.faithfulness.asking import Subject
from seewhy.checks.faithfulness.average_drop import VARIANTS, average_drop, coverage
from seewhy.checks.faithfulness.flipping import EDGE_LEAST, EDGE_MOST, LEAST, MOST, ORDER_NAMES, RANDOM, Curves, Orders
from seewhy.checks.faithfulness.subsets import correlations, infidelity, removed, shaken, sizes_of
from seewhy.checks.result import Curve, Score, score
from seewhy.intervals import Interval, interval
from seewhy.registry import Direction

CONTROLS = ("random_map", "edge_map")
PER_CENT = "% of the clean score"


@dataclass(frozen=True)
class Sheet:
    """Where values of the scored images belong among all, and which images share a source."""

    n: int
    used: Tensor  # (M,) the images that were scored
    clusters: Sequence[object] | None

    def spread(self, values: Tensor) -> Tensor:
        """(M,) -> (N,), NaN where an image was not scored."""
        found = torch.full((self.n,), torch.nan, dtype=torch.float64)
        found[self.used] = values.double().cpu()
        return found

    def score(
        self, name: str, values: Tensor, direction: Direction, unit: str, controls: Mapping[str, Tensor] | None = None
    ) -> Score:
        """A score of (M,), with the same of the controls, (M,) each."""
        others = {other: self.spread(numbers) for other, numbers in (controls or {}).items()}
        return score(name, self.spread(values), direction, unit, controls=others, clusters=self.clusters)

    def interval(self, values: Tensor) -> Interval:
        """The mean of (M,) and its interval."""
        return interval(self.spread(values), self.clusters)


def flipping_scores(sheet: Sheet, curves: Curves, fill: str, scales: Sequence[str]) -> list[Score]:
    """The area between the curves, and AOPC either way round, of one fill."""
    between = curves.area(LEAST) - curves.area(MOST)
    edge = curves.area(EDGE_LEAST) - curves.area(EDGE_MOST)
    most, least, chance = curves.fall(MOST), curves.fall(LEAST), curves.fall(RANDOM)
    edges = (curves.fall(EDGE_MOST), curves.fall(EDGE_LEAST))
    found = []
    for s, scale in enumerate(scales):
        after = f"{fill}_{scale}"
        found += [
            sheet.score(f"area_between_{after}", between[s], "higher", scale, {"edge_map": edge[s]}),
            sheet.score(f"aopc_{after}", most[s], "higher", scale, {"random_map": chance[s], "edge_map": edges[0][s]}),
            sheet.score(
                f"aopc_least_first_{after}",
                least[s],
                "lower",
                scale,
                {"random_map": chance[s], "edge_map": edges[1][s]},
            ),
        ]
    return found


def area_scores(sheet: Sheet, curves: Curves, fill: str, scales: Sequence[str], clean: Tensor) -> list[Score]:
    """Deletion and insertion of one fill: the area itself, and of a probability also as a share of the clean one."""
    areas = [curves.area(order) for order in (MOST, LEAST, RANDOM, EDGE_MOST, EDGE_LEAST)]
    found = []
    for s, scale in enumerate(scales):
        ways: list[tuple[str, str, Tensor]] = [("", scale, torch.ones_like(clean[s]))]
        if scale == "probability":
            ways.append(("_relative", "share of the clean probability", clean[s]))
        for relative, unit, whole in ways:
            most, least, chance, edge_most, edge_least = (area[s] / whole for area in areas)
            after = f"auc{relative}_{fill}_{scale}"
            controls = {"random_map": chance, "edge_map": edge_most}
            found.append(sheet.score(f"deletion_{after}", most, "lower", unit, controls))
            controls = {"random_map": chance, "edge_map": edge_least}
            found.append(sheet.score(f"insertion_{after}", least, "higher", unit, controls))
    return found


def curves_of(
    sheet: Sheet, curves: Curves, orders: Orders, fill: str, scales: Sequence[str], units: Tensor, unit: str
) -> list[Curve]:
    """Mean score against the share of the units that are hidden, a curve per order and scale."""
    x = tuple((orders.hidden / units[:, None]).mean(0).tolist())
    found = []
    for s, scale in enumerate(scales):
        for order, name in enumerate((*ORDER_NAMES, "random order")):
            values = curves.values[s, order:].mean(0) if order == RANDOM else curves.values[s, order]
            points = tuple(sheet.interval(value) for value in values)
            title = f"{name} ({fill}, {scale})"
            found.append(Curve(title, f"share of {unit} hidden", x, scale, points, control=order > LEAST))
    return found


def drop_scores(sheet: Sheet, subject: Subject) -> list[Score]:
    """Average drop and increase of both variants under every fill, with how much of the picture the map covers."""
    covered = coverage(subject)
    found = [_with_controls(sheet, "coverage", covered, "neither", "share of the picture")]
    for fill, picture in subject.fills.items():
        drop, increase = average_drop(subject, picture)
        for v, variant in enumerate(VARIANTS):
            after = f"{variant}_{fill}"
            falls = {name: values[v] for name, values in drop.items()}
            rises = {name: values[v] for name, values in increase.items()}
            found.append(_with_controls(sheet, f"average_drop_{after}", falls, "lower", PER_CENT))
            found.append(_with_controls(sheet, f"average_increase_{after}", rises, "higher", "% of the images"))
    return found


def infidelity_scores(sheet: Sheet, subject: Subject, perturbation: str, samples: int) -> list[Score]:
    """Infidelity as it is, with the map scaled to fit best, and that relative to the size of the falls."""
    several = (
        {"noise": shaken(subject, samples)}
        if perturbation == "noise"
        else {fill: removed(subject, picture, [0], samples) for fill, picture in subject.fills.items()}
    )
    found = []
    for how, (predicted, fall) in several.items():
        each = {name: infidelity(values, fall) for name, values in predicted.items()}
        for s, scale in enumerate(subject.scales):
            for rule, before, unit in (
                ("raw", "infidelity", f"{scale}^2"),
                ("scaled", "infidelity_scaled", f"{scale}^2"),
                ("relative", "infidelity_relative", "share of the mean squared change"),
            ):
                numbers = {name: values[rule][s] for name, values in each.items()}
                found.append(_with_controls(sheet, f"{before}_{how}_{scale}", numbers, "lower", unit))
    return found


def sensitivity_scores(sheet: Sheet, subject: Subject, samples: int, unit: str) -> tuple[list[Score], list[Curve]]:
    """Sensitivity-n under every fill: the mean over n, and the correlation for each n."""
    sizes = sizes_of(subject.units.counts)
    found, curves = [], []
    for fill, picture in subject.fills.items():
        predicted, fall = removed(subject, picture, sizes, samples)
        each = {name: correlations(values, fall, subject.clean, samples) for name, values in predicted.items()}
        for s, scale in enumerate(subject.scales):
            means = {name: values[s].nanmean(0) for name, values in each.items()}
            found.append(_with_controls(sheet, f"sensitivity_n_{fill}_{scale}", means, "higher", "correlation"))
            for name, values in each.items():
                points = tuple(sheet.interval(value) for value in values[s])
                x = tuple(map(float, sizes))
                title = f"sensitivity-n, {name} ({fill}, {scale})"
                curves.append(Curve(title, f"{unit} hidden", x, "correlation", points, control=name != "map"))
    return found, curves


def _with_controls(sheet: Sheet, name: str, each: Mapping[str, Tensor], direction: Direction, unit: str) -> Score:
    return sheet.score(name, each["map"], direction, unit, {control: each[control] for control in CONTROLS})
