"""Attacks that change no answer: exact constructions, whose only error is that of rounding."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from seewhy import capture
from seewhy.attacks.copies import logits, private_copy, without_graph
from seewhy.attacks.region import Region, Sign, mass_in, on_grid, region_mask
from seewhy.attacks.result import Attacked, agreement, attack, check_labels, movement
from seewhy.checks.result import Curve, excluded
from seewhy.errors import RefusalError, UsageError, known_name, real_number
from seewhy.intervals import interval
from seewhy.maps import MapFunction, Maps, why_unusable
from seewhy.model import VisionModel
from seewhy.normalization import normalized
from seewhy.similarity import rank_correlation
from seewhy.target import Target, predicted_classes

POINTS = (0.0, 0.25, 0.5, 1.0)  # of the strength, for the curves
ROUNDING = {torch.float64: 1e-12, torch.float32: 1e-5}  # most that an output may change, over the largest output
SAME = 1e-4  # over the sum of |terms|: another order of summation is far below, another head far above
NULL = 1e-12  # over the largest singular value: what is below is rounding
SOMETHING = 1e-6  # share of the region that has to be left beside what the images span


@attack
def two_channels(
    model: VisionModel,
    images: Tensor,
    target: Target,
    maps: MapFunction,
    *,
    region: Region = "frame",
    sign: Sign = "positive",
    strength: float = 2.0,
    labels: Tensor | None = None,
) -> Attacked:
    """Move Grad-CAM wherever you like and leave the answers to all images as they are: two channels that cancel.

    For networks whose last grid A (N, K, h, w) is averaged and read by one linear layer, which is found by running: A gets
    two channels more, P = Z r and U = sum r (Z cells; r = 1 in the region's cells, else 0), of equal mean, with weights +v
    and -v for every class. Both sums are the same whole number, so that they cancel but for rounding. Grad-CAM gets
    v (P - U) / Z: `strength` times its largest value on these images is taken off outside of the region.
    moved, kept and curves as in location_fooling, over the strength; nothing is tuned, all images are judged. The copy has
    another architecture: its weights do not fit the original's. RefusalError for another head, for half precision, and
    where an output changes by more than 1e-12 (float64) or 1e-5 (float32) of the largest.
    Source: own construction, in the manner of Viering et al. 2019, arXiv:1907.10901.
    """
    known_name("sign", sign, ("positive", "absolute"))
    mask = region_mask(region, images.shape[2:])
    subject = _subject(model, images, target, maps, labels, strength)
    layer, linear = _head(model, images[:1], subject.before.target)
    activations = _outputs(model, images, subject.before.target, layer)
    cells = _cells(mask, activations.shape[2:])
    copied = private_copy(model)
    weight = _append(copied.module, layer.name, linear.name, cells)
    classes = predicted_classes(subject.table, model.task).clamp(max=len(weight) - 1)
    cams = torch.einsum("nk,nk...->n...", weight[classes, :-2], activations) / cells.numel()
    largest = float(cams.abs().max())

    def build(share: float) -> None:
        v = share * strength * largest * cells.numel() / float(cells.sum())
        weight[:, -2], weight[:, -1] = v, -v

    found = _judged(subject, copied, maps, build, mask, sign)
    return _with(found, {"layer": layer.name, "linear": linear.name, "largest_cam": largest})


@attack
def on_manifold(
    model: VisionModel,
    images: Tensor,
    target: Target,
    maps: MapFunction,
    *,
    region: Region = "frame",
    strength: float = 10.0,
    labels: Tensor | None = None,
) -> Attacked:
    """Move the gradient wherever you like and leave the answers to these images as they are: f + lambda (n . x - b).

    n: the region's mask without all that these images span, the null space of their PCA; so n . x = b for each of them
    (the tighter they lie, the more is left: pixels that are the same in all of them stay whole). Their outputs do not
    change, and the gradient of every class gets lambda n, at most `strength` times the largest of before. To any other image
    all logits change by the same number: its class and softmax stay, too. moved, kept and curves as in two_channels, with
    the mass of |M|. Methods of the gradient move, others do not. The layers of the copy are called network.NAME.
    RefusalError where less than 1e-6 of the region's mask is left, and where an output changes by more than rounding.
    Source: Anders et al. 2020, arXiv:2007.09969, section 3.
    """
    mask = region_mask(region, images.shape[2:])
    subject = _subject(model, images, target, maps, labels, strength)
    if subject.before.target.beside is not None:
        raise UsageError("this construction is for networks that are given images only.")
    if model.reading(tuple(images.shape[1:])).ending is not None:
        raise RefusalError(
            "this network ends in a softmax: a number added to its output is no logit. Take the softmax off."
        )
    z = normalized(images.to(model.device), model.mean, model.std) if model.mean else images.to(model.device)
    spread = torch.tensor(model.std or (1.0,), dtype=torch.float64, device=model.device)
    wanted = mask.to(model.device).double() * spread.view(-1, *[1] * mask.ndim).expand(z.shape[1], *[1] * mask.ndim)
    normal, left = _beside_images(z.double().flatten(1), wanted.flatten())
    if left < SOMETHING:
        raise RefusalError(
            f"these {len(images)} images leave {left:.1g} of the region free: no linear constraint that they fulfill lies in "
            "it. Fewer images, or a region whose pixels are the same in all of them."
        )
    largest = _largest_slope(model, images, subject.before.target)
    copied = private_copy(model)
    plane = _Plane(copied.module, normal, float((z.double().flatten(1) @ normal).mean()))
    copied.module = copied.network.module = plane
    highest = float((normal.view(wanted.shape) / spread.view(-1, *[1] * mask.ndim)).abs().max())

    def build(share: float) -> None:
        plane.factor.fill_(share * strength * largest / highest)

    found = _judged(subject, copied, maps, build, mask, "absolute")
    return _with(found, {"share_of_the_region_left": left, "largest_gradient": largest})


@dataclass(frozen=True)
class _Subject:
    """The user's own network, its maps and its answers."""

    model: VisionModel
    images: Tensor
    before: Maps
    table: Tensor  # logits (N, classes), in the network's own precision
    labels: Tensor | None
    strength: float


def _subject(
    model: VisionModel, images: Tensor, target: Target, maps: MapFunction, labels: Tensor | None, strength: float
) -> _Subject:
    real_number("strength", strength, at_least=0, above=True)
    if model.dtype not in ROUNDING or model.precision != "float32":
        raise RefusalError(
            f"this network computes in {model.precision}, {model.dtype}: nothing is exact there. Use float32."
        )
    check_labels(labels, len(images))
    before = without_graph(maps, model, images.detach(), target)
    return _Subject(model, images.detach(), before, _table(model, images, before.target), labels, strength)


def _table(model: VisionModel, images: Tensor, target: Target) -> Tensor:
    def run(part: slice) -> Tensor:
        rows = torch.arange(part.start, part.stop, device=model.device)
        model.count(forward=len(rows))
        return logits(model, images[part], target.beside_of(rows))

    with model.guarded():
        return torch.cat(model.in_batches(len(images), images.shape[1:], run))


def _judged(
    subject: _Subject,
    copied: VisionModel,
    maps: MapFunction,
    build: Callable[[float], None],
    mask: Tensor,
    sign: Sign,
) -> Attacked:
    """What moved and what did not, at each of some strengths; the copy stays at the last one."""
    before, images, rounding = subject.before, subject.images, ROUNDING[subject.table.dtype]
    points = []
    for share in POINTS:
        build(share)
        after = without_graph(maps, copied, images, before.target)
        table = _table(copied, images, before.target)
        change = float(((table - subject.table).abs().amax(1) / subject.table.abs().amax(1)).max())
        if not change <= rounding:
            raise RefusalError(
                f"an output changes by {change:.1g} of the largest, more than by rounding ({rounding:g}): this network does "
                "not keep its answers under the construction, or the strength drowns them. Use another attack, or a smaller "
                f"strength than {subject.strength:g}."
            )
        points.append((after, table))
    x = tuple(share * subject.strength for share in POINTS)
    alike = tuple(interval(rank_correlation(before.raw.cpu(), after.raw.cpu())) for after, _ in points)
    mass = tuple(interval(mass_in(after.raw, mask, sign).cpu()) for after, _ in points)
    after, table = points[-1]
    return Attacked(
        attack="",
        model=copied,
        images=images,
        before=before,
        after=after,
        moved=movement(before, after, mask, sign),
        kept=agreement(subject.table, table, subject.model.task, subject.labels),
        curves=(
            Curve("similarity", "strength", x, "rank correlation", alike),
            Curve("mass_in_region", "strength", x, "share of the map", mass),
        ),
        excluded=excluded(why_unusable(before), why_unusable(after)),
    )


# -- two channels ------------------------------------------------------------------------------------------------------


def _head(model: VisionModel, image: Tensor, target: Target) -> tuple[capture.Site, capture.Site]:
    """The last grid that is averaged and read by one linear layer whose outputs are the logits, and that layer."""
    beside = target.beside_of(torch.zeros(1, dtype=torch.long, device=model.device))

    def run() -> Any:
        return model.forward(image, beside)

    with model.guarded():
        table = logits(model, image, beside)
        sites = [(site, shape) for site, shape, _ in capture.trace(model.module, run)[0]]
        linears = [s for s, shape in sites if isinstance(s.module, nn.Linear) and shape == tuple(table.shape)]
        grids = [s for s, shape in sites if len(shape) == image.ndim and max(shape[2:]) > 1 and "#" not in s.name]
        seen = dict(zip([*linears, *grids], capture.outputs_at(run, [*linears, *grids]), strict=True))
    for linear in reversed(linears):
        reader: Any = linear.module
        for grid in reversed(grids):
            if seen[grid].shape[1] == reader.in_features and "#" not in linear.name:
                mean = seen[grid].flatten(2).mean(2)
                bias = None if reader.bias is None else reader.bias.abs()
                terms = functional.linear(
                    mean.abs(), reader.weight.abs(), bias
                )  # a logit near 0 is a sum of large ones
                said = functional.linear(mean, reader.weight, reader.bias)
                if bool(((said - table).abs() <= SAME * terms).all()):
                    return grid, linear
    raise RefusalError(
        f"no grid of this network is averaged over its cells and then read by one linear layer, whose outputs are the logits "
        f"({len(grids)} grids and {len(linears)} linear layers were tried): two channels cannot be made to cancel. "
        "location_fooling works on any network."
    )


def _outputs(model: VisionModel, images: Tensor, target: Target, site: capture.Site) -> Tensor:
    def run(part: slice) -> Tensor:
        rows = torch.arange(part.start, part.stop, device=model.device)
        model.count(forward=len(rows))
        return capture.outputs_at(lambda: model.forward(images[part], target.beside_of(rows)), [site])[0]

    with model.guarded():
        return torch.cat(model.in_batches(len(images), images.shape[1:], run))


def _cells(mask: Tensor, grid: torch.Size) -> Tensor:
    """Which cells of a grid lie in the region for the most part, (*grid) of 0 and 1; at least the one that does most."""
    share = on_grid(mask, grid)
    chosen = share >= min(0.5, float(share.max()))
    if bool(chosen.all()):
        raise UsageError(f"this region covers all {' x '.join(map(str, grid))} cells of the grid: take a smaller one.")
    return chosen.float()


def _append(module: nn.Module, layer: str, linear: str, cells: Tensor) -> Tensor:
    """Give a layer the channels P and U, and the linear layer behind it weights for them: these weights, whole."""
    parent, _, name = layer.rpartition(".")
    setattr(module.get_submodule(parent), name, _TwoMore(module.get_submodule(layer), cells))
    reader: Any = module.get_submodule(linear)
    old: nn.Parameter = reader.weight
    more = torch.cat([old.detach(), old.new_zeros(len(old), 2)], 1)
    reader.weight, reader.in_features = nn.Parameter(more, requires_grad=old.requires_grad), more.shape[1]
    whole: Tensor = reader.weight.detach()
    return whole


class _TwoMore(nn.Module):
    """A layer's output (N, K, *grid) with two constant channels behind it, whose sums are the same whole number."""

    def __init__(self, layer: nn.Module, cells: Tensor) -> None:
        super().__init__()
        self.layer = layer
        self.two: Tensor
        self.register_buffer("two", torch.stack([cells.numel() * cells, cells.sum().expand_as(cells)]))

    def forward(self, *given: Any, **named: Any) -> Tensor:
        """The layer's own output, and P and U behind it."""
        a: Tensor = self.layer(*given, **named)
        return torch.cat([a, self.two.to(a).expand(len(a), *self.two.shape)], 1)


# -- on the manifold ---------------------------------------------------------------------------------------------------


def _beside_images(points: Tensor, wanted: Tensor) -> tuple[Tensor, float]:
    """What of a direction (D,) is orthogonal to all differences of points (N, D), and its share of the squared length."""
    _, values, basis = torch.linalg.svd(points - points.mean(0), full_matrices=False)
    basis = basis[values > NULL * values.amax().clamp_min(torch.finfo(values.dtype).tiny)]
    left = wanted
    for _ in range(2):  # once more for what rounding left
        left = left - basis.T @ (basis @ left)
    return left, float(left.square().sum() / wanted.square().sum())


def _largest_slope(model: VisionModel, images: Tensor, target: Target) -> float:
    def run(part: slice) -> float:
        rows = torch.arange(part.start, part.stop)
        found, _ = model.input_gradients(
            images[part], target.select(rows), torch.arange(len(rows), device=model.device)
        )
        return float(found.abs().max())

    return max(model.in_batches(len(images), images.shape[1:], run))


class _Plane(nn.Module):
    """A network's logits plus factor * (n . z - b), the same for all classes; n . z is computed in float64."""

    def __init__(self, network: nn.Module, normal: Tensor, offset: float) -> None:
        super().__init__()
        self.network, self.offset = network, offset
        self.normal: Tensor
        self.factor: Tensor
        self.register_buffer("normal", normal)
        self.register_buffer("factor", torch.zeros((), dtype=torch.float64, device=normal.device))

    def forward(self, z: Tensor) -> Tensor:
        """Logits of the network's own input z (N, C, *axes)."""
        said = self.network(z)
        if not isinstance(said, Tensor) or said.ndim != 2:
            raise RefusalError(
                f"this network gives {type(said).__name__}: the construction is for one table of logits."
            )
        along = z.double().flatten(1) @ self.normal - self.offset
        return said + (self.factor * along).to(said)[:, None]


def _with(found: Attacked, settings: Mapping[str, Any]) -> Attacked:
    return replace(found, settings=dict(settings))
