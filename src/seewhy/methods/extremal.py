"""Extremal perturbations: the region of a given size that keeps the score highest."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from seewhy.errors import UsageError, real_number, whole_number
from seewhy.maps import Maps, join
from seewhy.methods.perturbation import linear_weights
from seewhy.methods.steps import by_groups, clean_run, norm, per_image
from seewhy.model import VisionModel
from seewhy.perturb import gaussian_blur
from seewhy.registry import method
from seewhy.target import Target

NODES = {1: 32, 2: 32, 3: 12}  # of the mask's lattice along the shorter side where no step is given
STEPS_PER_SIGMA = 3
LEVELS = 8  # of the blur pyramid
TEMPERATURE = 1 / 20  # of the smooth maximum
SOFT = 0.05  # of the mask's range: cells nearer than that to the area's quantile are no longer ranked
BISECTIONS = 30  # to float32's resolution
PENALTY, DOUBLINGS = 0.4, 6  # of the area, in units of the score's first gradient; it grows evenly over the iterations
LOCAL = (
    "a local optimum of a rough landscape: a picture that differs in the last digits may keep another region, with "
    "another preserved_score"
)


@method(
    title="Extremal Perturbation",
    family="perturbation",
    resolution="input",
    picture="positive",
    rows=lambda p: (5, p["iterations"]),
    cost="iterations gradient rows + 5 forward rows (805 by default)",
    paper="Fong et al. 2019, arXiv:1910.08485, section 3",
    good_for="how small a part of the picture keeps the score (Fong 2019)",
    not_for="ranking pixels: the mask is nearly binary, and grows with the area that is asked for (Fong 2019)",
    randomization="its authors report that it changes with the weights (Fong 2019; second-hand)",
)
def extremal_perturbation(
    model: VisionModel,
    images: Tensor,
    target: Target,
    *,
    area: float = 0.1,
    iterations: int = 800,
    step: int | None = None,
    sigma: float | None = None,
    blur: float = 0.09,
    learning_rate: float = 0.6,
    momentum: float = 0.9,
) -> Maps:
    """The mask of a given area that keeps the score highest while the rest is blurred away.

    m = argmax S(m * x) - lambda |m - r|^2, r = 1 for the top share `area` of the cells and 0 for the others; m * x is x
    blurred at each pixel with sigma (1 - m) `blur` (in shorter sides), read off a pyramid of 8 blurs. m(u) = smax_v
    k(u - v) q(v) of free values q in [0, 1] on a lattice (`step` pixels apart; None: 32 nodes a side), smax(f) = sum f
    exp(f / T) / sum exp(f / T), T = 1/20, k = 1 up to sigma / 2, then a Gaussian fall (sigma in pixels; None: 3 steps):
    no region is finer than that. M = m, (N, *axes) in [0, 1], no score units. Gradient steps with momentum from q = 1/2,
    on the logit; lambda grows 64-fold over the iterations, and the area comes close to what is asked (see evidence).
    Ours, not the paper's: S is divided by the L1 norm of its first gradient by q, so that lambda means the same for
    every network and unit; smax is taken at the nodes and interpolated linearly; r falls from 1 to 0 within 0.05 of the
    mask's range and not at once, so that a tied region is not cut in raster order and float noise exchanges no ranks;
    lambda and learning rate are set here, on photographs. Kernel, T and the 8 blurs are settings of the authors' library,
    of which no code is taken (CC BY-NC).
    Images are optimized one at a time, one row a forward: the ascent amplifies rounding, which depends on the size of a
    batch, until other regions are found. So a mask is the same in every batch, but one of several local optima.
    Evidence: preserved_score S(m * x); deleted_score, with m and 1 - m exchanged; shifted_score, with m moved by half
    the picture: same area, elsewhere; blurred_score; area, the mean of m; gradient_norm of the first iteration.
    UsageError for area outside (0, 1), step or sigma <= 0, momentum outside [0, 1).
    """
    _check(area, iterations, step, sigma, blur, learning_rate, momentum)
    lattice = _lattice(images.shape[2:], step, sigma, model.device)
    descent = _Descent(area, iterations, learning_rate, momentum)

    def one(x: Tensor, question: Target, rows: Tensor) -> Maps:
        settled, values, outputs = clean_run(model, x, question, rows)
        pyramid = _pyramid(x, blur)
        blurred = clean_run(model, pyramid[:, -1], settled, rows)[1]
        free, gradient_norm = descent.run(model, pyramid, settled, rows, lattice)
        m = lattice.mask(lattice.cells(free))
        elsewhere = m.roll([side // 2 for side in m.shape[1:]], list(range(1, m.ndim)))
        shown = {"preserved_score": m, "deleted_score": 1 - m, "shifted_score": elsewhere}
        evidence = {name: model.answer(_perturbed(pyramid, v), settled, rows).values for name, v in shown.items()}
        evidence |= {"blurred_score": blurred, "area": m.flatten(1).mean(1), "gradient_norm": gradient_norm}
        return Maps(m, settled, values, outputs, evidence, notes=(LOCAL,))

    def run(part: slice, question: Target, rows: Tensor) -> Maps:
        x = images[part].to(model.device)
        return join([one(x[i : i + 1], question.select(rows[i : i + 1]), rows[:1]) for i in range(len(x))])

    return by_groups(model, images, target, run)


# -- masks ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Lattice:
    """Where the free values of a mask lie, and how they become a mask."""

    nodes: tuple[int, ...]  # per axis
    kernel: Tensor  # k at every offset of a window of nodes, (w, ...), every w odd
    weights: list[Tensor]  # per axis (pixels, nodes): linear interpolation, held at the outer nodes

    def cells(self, free: Tensor) -> Tensor:
        """(g, *nodes) -> (g, *nodes): the smooth maximum over the window around each node; nothing beyond the border."""
        widths = self.kernel.shape
        padding = [side for width in reversed(widths) for side in (width // 2, width // 2)]
        windows = functional.pad(free, padding)
        for axis, width in enumerate(widths, 1):
            windows = windows.unfold(axis, width, 1)
        f = (windows * self.kernel).flatten(len(widths) + 1)
        return (f * torch.softmax(f / TEMPERATURE, -1)).sum(-1)

    def mask(self, cells: Tensor) -> Tensor:
        """(g, *nodes) -> (g, *axes), linear between nodes."""
        for weights in self.weights:
            cells = torch.tensordot(cells, weights, ([1], [1]))
        return cells


def _lattice(axes: torch.Size, step: int | None, sigma: float | None, device: torch.device) -> _Lattice:
    spacing = step or -(-min(axes) // NODES[len(axes)])
    width = sigma or STEPS_PER_SIGMA * spacing
    nodes = tuple(-(-side // spacing) for side in axes)
    apart = [side / count for side, count in zip(axes, nodes, strict=True)]  # of two nodes, in pixels
    distance, weights = torch.zeros([1] * len(axes), device=device), []
    for axis, (side, count, gap) in enumerate(zip(axes, nodes, apart, strict=True)):
        reach = min(math.ceil(2 * width / gap), count - 1)  # at 2 sigma the kernel is 1 %
        offsets = torch.arange(-reach, reach + 1, device=device, dtype=torch.float32) * gap
        distance = distance + offsets.square().view(-1, *[1] * (len(axes) - 1 - axis))
        pixels = torch.arange(side, device=device, dtype=torch.float32)
        weights.append(linear_weights((pixels + 0.5) / gap - 0.5, count))
    kernel = torch.exp(-2 * (distance.float().sqrt() / width - 0.5).clamp_min(0).square())
    return _Lattice(nodes, kernel, weights)


def wanted_cells(cells: Tensor, area: float) -> Tensor:
    """What the area constraint asks of each cell: 1 for the top share `area`, 0 for the others, tied cells the same.

    A ramp of width SOFT around the quantile q with mean(wanted) = area, q by bisection: (g, *nodes) in [0, 1].
    """
    flat = cells.flatten(1)
    low, high = flat.amin(1, keepdim=True) - SOFT, flat.amax(1, keepdim=True) + SOFT
    for _ in range(BISECTIONS):
        q = (low + high) / 2
        too_many = _ramp(flat, q).mean(1, keepdim=True) > area
        low, high = torch.where(too_many, q, low), torch.where(too_many, high, q)
    return _ramp(flat, (low + high) / 2).view_as(cells)


def _ramp(flat: Tensor, q: Tensor) -> Tensor:
    return ((flat - q) / SOFT + 0.5).clamp(0, 1)


# -- pictures ---------------------------------------------------------------------------------------------------------


def _pyramid(x: Tensor, blur: float) -> Tensor:
    """(g, LEVELS, C, *axes): x, and x ever more blurred, up to a sigma of `blur` shorter sides."""
    strongest = blur * min(x.shape[2:])
    return torch.stack([x, *(gaussian_blur(x, strongest * k / (LEVELS - 1)) for k in range(1, LEVELS))], 1)


def _perturbed(pyramid: Tensor, m: Tensor) -> Tensor:
    """Each pixel at level (LEVELS - 1)(1 - m) of the pyramid, between two levels linearly: (g, C, *axes)."""
    level = (LEVELS - 1) * (1 - m.unsqueeze(1).unsqueeze(1))
    below = level.detach().floor().clamp(0, LEVELS - 2)
    index = below.nan_to_num(0.0).long().expand(-1, 1, *pyramid.shape[2:])
    sharp, soft = pyramid.gather(1, index)[:, 0], pyramid.gather(1, index + 1)[:, 0]
    return sharp + (level - below)[:, 0] * (soft - sharp)


# -- optimization ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Descent:
    """Projected gradient steps with momentum; memory does not grow with the iterations."""

    area: float
    iterations: int
    learning_rate: float
    momentum: float

    def run(
        self, model: VisionModel, pyramid: Tensor, target: Target, rows: Tensor, lattice: _Lattice
    ) -> tuple[Tensor, Tensor]:
        """The free values (g, *nodes) at the end, and the L2 norm of d S / d mask in the first iteration."""
        free = torch.full((len(pyramid), *lattice.nodes), 0.5, dtype=torch.float32, device=pyramid.device)
        velocity, unit, first = torch.zeros_like(free), free, torch.zeros(0)
        for k in range(self.iterations):
            slope, penalty, gradient_norm = self._slopes(model, pyramid, target, rows, lattice, free)
            if k == 0:
                unit = per_image(slope.abs().flatten(1).sum(1).clamp_min(torch.finfo(torch.float32).tiny), free)
                first = gradient_norm
            weight = PENALTY * 2 ** (DOUBLINGS * k / self.iterations)
            velocity = self.momentum * velocity + slope / unit - weight * penalty
            free = (free + self.learning_rate * velocity).clamp(0, 1)
        return free, first

    def _slopes(
        self, model: VisionModel, pyramid: Tensor, target: Target, rows: Tensor, lattice: _Lattice, free: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of the score and of the area penalty by the free values, and the norm of the score's by the mask."""
        with torch.enable_grad():
            leaf = free.detach().requires_grad_()
            cells = lattice.cells(leaf)
            m = lattice.mask(cells)
            shown = _perturbed(pyramid, m)
        slope, _ = model.input_gradients(shown.detach(), target, rows)
        with torch.enable_grad():
            penalty = (cells - wanted_cells(cells.detach(), self.area)).square().flatten(1).mean(1).sum()
        (by_mask,) = torch.autograd.grad(shown, m, slope, retain_graph=True)
        (by_free,) = torch.autograd.grad(m, leaf, by_mask, retain_graph=True)
        (penalty_by_free,) = torch.autograd.grad(penalty, leaf)
        return by_free, penalty_by_free, norm(by_mask)


def _check(
    area: float, iterations: int, step: int | None, sigma: float | None, blur: float, rate: float, momentum: float
) -> None:
    whole_number("iterations", iterations, at_least=1)
    if step is not None:
        whole_number("step", step, at_least=1)
    if sigma is not None:
        real_number("sigma", sigma, at_least=0, above=True)
    for name, value in (("area", area), ("blur", blur), ("learning_rate", rate)):
        real_number(name, value, at_least=0, above=True)
    real_number("momentum", momentum, at_least=0)
    for name, value in (("area", area), ("momentum", momentum)):
        if value >= 1:
            raise UsageError(f"{name} is a number below 1; got {value!r}.")
