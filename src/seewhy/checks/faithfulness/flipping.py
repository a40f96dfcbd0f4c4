"""Pixel flipping, deletion and insertion: what the network says while more and more of the picture is hidden in an order."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from seewhy.checks.faithfulness.asking import Subject
from seewhy.checks.faithfulness.units import tied_share
from seewhy.controls import random_maps
from seewhy.perturb import ranks

Fill = Callable[[Tensor, Tensor], Tensor]  # images (R,) and what is hidden of them (R, 1, *axes) -> (R, C, *axes)
MOST, LEAST, EDGE_MOST, EDGE_LEAST, RANDOM = range(5)  # orders in which units are hidden; random ones from the last on
ORDER_NAMES = ("most relevant first", "least relevant first", "edge map, most first", "edge map, least first")


@dataclass(frozen=True)
class Orders:
    """In which order the units of each image are hidden, and how many of them at each step."""

    ranks: Tensor  # (orders, N, U): 0 is hidden first
    hidden: Tensor  # (N, steps + 1) units hidden at each point, from none to all
    shares: Tensor  # (orders, steps + 1, N): the same as a share of the pixels, exact
    tied: Tensor  # (N,) share of the units whose value in the map another unit has too


@dataclass(frozen=True)
class Curves:
    """What the network says at each point of each order, under one fill."""

    values: Tensor  # (scales, orders, steps + 1, N) float64
    shares: Tensor  # (orders, steps + 1, N)

    def area(self, order: int) -> Tensor:
        """Area under a curve by the trapezoid rule on true shares, (scales, N); random orders: their mean."""
        chosen = slice(order, None) if order == RANDOM else slice(order, order + 1)
        return torch.trapezoid(self.values[:, chosen], self.shares[chosen], dim=2).mean(1)

    def fall(self, order: int) -> Tensor:
        """AOPC, (scales, N): the mean over the points, the clean one among them, of the fall of the score."""
        chosen = self.values[:, order:] if order == RANDOM else self.values[:, order : order + 1]
        return (chosen[:, :, :1] - chosen).mean((1, 2))


def orders_of(subject: Subject, steps: int, random_orders: int) -> Orders:
    """The map's order and the edge map's, each both ways round, and random orders; ties are broken by the seed."""
    units = subject.units
    ties = units.means(random_maps(subject.x, subject.seed + random_orders))  # the controls have the seeds before it
    counts = units.counts[:, None]
    found = []
    for name in ("map", "edge_map"):
        first = ranks(units.means(subject.maps[name]), ties)
        found += [first, counts - 1 - first]
    for more in range(random_orders):
        noise = subject.maps["random_map"] if more == 0 else random_maps(subject.x, subject.seed + more)
        found.append(ranks(units.means(noise), ties))
    hidden = torch.arange(steps + 1, device=counts.device) * counts // steps
    shares = torch.stack([_shares(rank, hidden, units.sizes) for rank in found])
    return Orders(torch.stack(found), hidden, shares, tied_share(units.means(subject.maps["map"]), units.counts))


def _shares(rank: Tensor, hidden: Tensor, sizes: Tensor) -> Tensor:
    """(steps + 1, N): share of each image's pixels in its first `hidden` units."""
    along = torch.zeros_like(sizes).scatter_add_(1, rank.clamp_min(0), sizes).cumsum(1)
    along = torch.cat([torch.zeros_like(along[:, :1]), along], 1)
    return (along.gather(1, hidden) / along[:, -1:]).T


def static(subject: Subject, fill: Tensor) -> Fill:
    """Hidden pixels are taken from another picture of the same image."""
    return lambda image, hidden: torch.where(hidden, fill[image], subject.x[image])


def flip(subject: Subject, orders: Orders, fill: Fill) -> Curves:
    """Hide the units of every image in every order: orders * (steps - 1) + 1 forward rows an image.

    The clean picture is known, and the wholly hidden one is the same in every order.
    """
    n_orders, points = len(orders.ranks), orders.hidden.shape[1]
    samples = n_orders * (points - 2) + 1

    def pictures(image: Tensor, sample: Tensor) -> Tensor:
        order, point = sample // (points - 2) % n_orders, sample % (points - 2) + 1
        point = torch.where(sample == samples - 1, points - 1, point)
        chosen = orders.ranks[order, image] < orders.hidden[image, point][:, None]
        return fill(image, subject.units.pixels(image, chosen))

    said = subject.ask(samples, pictures)
    inner = said[:, :-1].view(len(said), n_orders, points - 2, -1)
    clean = subject.clean[:, None, None].expand(-1, n_orders, 1, -1)
    last = said[:, None, -1:].expand(-1, n_orders, 1, -1)
    return Curves(torch.cat([clean, inner, last], 2), orders.shares)


def agreement(curves: Mapping[str, Curves]) -> Tensor:
    """How alike the fills rank map, edge map and random order on each image: Kendall's tau by AOPC, (N,) in [-1, 1].

    The mean over the three pairs of orders, and over pairs of fills, of 1 where both fills put the same one first and -1
    where they do not; on the first scale.
    """
    falls = [torch.stack([c.fall(order)[0] for order in (MOST, EDGE_MOST, RANDOM)]) for c in curves.values()]
    signs = [torch.stack([torch.sign(f[a] - f[b]) for a, b in ((0, 1), (0, 2), (1, 2))]) for f in falls]
    pairs = [a * b for i, a in enumerate(signs) for b in signs[i + 1 :]]
    return torch.stack(pairs).mean((0, 1))
