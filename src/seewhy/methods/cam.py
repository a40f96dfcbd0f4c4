"""Class activation maps: `combine(activations, gradients) -> (N, *grid)` over one shared driver."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from seewhy.errors import RefusalError, known_name
from seewhy.layers import Layer
from seewhy.maps import Maps
from seewhy.methods.steps import by_groups, norm, table
from seewhy.model import VisionModel
from seewhy.registry import method
from seewhy.target import Target

Combine = Callable[[Tensor, Tensor], Tensor]
Measure = Callable[[Layer, Tensor, Tensor], dict[str, Tensor]]  # of activations and gradients: name -> (N,)
LayerChoice = str | nn.Module | Sequence[str | nn.Module] | None
Variant = Literal["paper", "code"]
VARIANTS = ("paper", "code")
SAME = 1e-3  # of the largest gradient: a linear head gives bit-equal ones, bfloat16 keeps 8 bits
OTHER_ACTIVATIONS = -0.5  # times the network's own: sign and size change, so no odd or homogeneous head looks linear


@method(
    title="CAM",
    family="cam",
    rows=lambda _: (0, 2),
    resolution="layer",
    picture="positive",
    cost="2 gradient rows (the second tests that the head is linear)",
    paper="Zhou et al. 2016, arXiv:1512.04150, equation 2",
    good_for="networks that end in global average pooling and one linear layer: there it is exact (Zhou 2016)",
    not_for="any other head, which is refused: Grad-CAM is its generalization (Selvaraju 2017, section 3.1)",
    randomization="not reported",
)
def cam(model: VisionModel, images: Tensor, target: Target, *, layer: LayerChoice = None) -> Maps:
    """How much each cell adds to the class score, where the score is linear in the layer's averages.

    S = 1/Z sum_ij M_ij + b, M = sum_k w_k A^k, (N, *grid) at the layer's own grid, in score units: the mean of a map is
    the score without its bias. w_k = Z dS/dA_k: no layer is found by its name, the head is tested. Its gradient must be
    the same in all cells, and the same again when the activations are multiplied by -1/2; else RefusalError (also for a
    probability, which is not linear). That is local evidence, at each image, not a proof for every input.
    Evidence: gradient_norm at the layer. Same as Grad-CAM times the number of cells.
    """
    if target.scale in ("probability", "log_probability"):
        raise RefusalError(
            f"cam explains a logit: a {target.scale.replace('_', ' ')} is not linear in any layer. Use a logit target, or "
            "grad_cam."
        )
    chosen = model.find_layer(layer, tuple(images.shape[1:]), target)

    def run(part: slice, question: Target, rows: Tensor) -> Maps:
        x = images[part]
        (activations,), (gradients,), answer = model.activations_and_gradients(x, question, rows, [chosen])
        _, (again,), _ = model.activations_and_gradients(x, answer.target, rows, [chosen], OTHER_ACTIVATIONS)
        _check_linear(chosen, gradients, again)
        raw = weighted(gradients.flatten(2).sum(2), activations)
        return Maps(
            raw, answer.target, answer.values, table(answer.outputs), {"gradient_norm": norm(gradients)}, chosen
        )

    return by_groups(model, images, target, run)


def _check_linear(layer: Layer, gradients: Tensor, again: Tensor) -> None:
    bound = SAME * gradients.flatten(1).abs().amax(1)
    between_cells = (gradients - gradients.flatten(2).mean(2).view(_as_weights(gradients))).flatten(1).abs().amax(1)
    between_runs = (again - gradients).flatten(1).abs().amax(1)
    why = "is not the same in all its cells" if bool((between_cells > bound).any()) else ""
    why = "changes with its activations" if not why and bool((between_runs > bound).any()) else why
    if why:
        raise RefusalError(
            f"cam needs a score that is linear in the averages of layer {layer.name!r} (global average pooling, then one "
            f"linear layer), but its gradient there {why}. Use grad_cam or hires_cam, which take any head."
        )


@method(
    title="Grad-CAM",
    family="cam",
    rows=lambda _: (0, 1),
    resolution="layer",
    picture="positive",
    cost="1 gradient row (backward only down to the layer)",
    paper="Selvaraju et al. 2017, arXiv:1610.02391, equations 1 and 2",
    good_for="debugging: which object, in one pass (Selvaraju 2017)",
    not_for="detail finer than a cell of the layer; several objects of a class (Chattopadhyay 2018)",
    randomization="passes where what is randomized lies at or above its layer (Adebayo 2018)",
)
def grad_cam(
    model: VisionModel, images: Tensor, target: Target, *, layer: LayerChoice = None, differentiable: bool = False
) -> Maps:
    """Which cells of a layer speak for the class: activations weighted by their mean gradient.

    alpha_k = 1/Z sum_ij dS/dA_ij^k; M = sum_k alpha_k A^k, (N, *grid) at the layer's own grid, in score units. The paper
    takes ReLU(M); we keep M signed (pictures draw the positive part, status `all_negative` says when there is none).
    layer: a name or a module; None takes the model's default layer. Evidence: gradient_norm at the layer.
    differentiable: the map keeps a graph, to images that require a gradient and to such parameters, for attacks and for
    training on maps.
    """
    return _driven(model, images, target, layer, grad_cam_map, differentiable=differentiable)


def grad_cam_map(activations: Tensor, gradients: Tensor) -> Tensor:
    """Activations weighted by their mean gradient: (N, *grid)."""
    return weighted(gradients.flatten(2).mean(2), activations)


@method(
    title="Grad-CAM++",
    family="cam",
    rows=lambda _: (0, 1),
    resolution="layer",
    picture="positive",
    cost="1 gradient row (backward only down to the layer)",
    paper="Chattopadhyay et al. 2018, arXiv:1710.11063, equations 7 and 19, and the authors' code",
    good_for="several objects of one class (Chattopadhyay 2018)",
    not_for="average-pool networks: there it is Grad-CAM with positive weights (Lerma and Lucas 2022, arXiv:2205.10838)",
    randomization="not reported",
)
def grad_cam_pp(
    model: VisionModel,
    images: Tensor,
    target: Target,
    *,
    layer: LayerChoice = None,
    variant: Variant = "code",
    differentiable: bool = False,
) -> Maps:
    """Grad-CAM with a weight for each cell before the gradients are averaged, and positive gradients only.

    w_k = sum_ij alpha_ij^k ReLU(g_ij^k), alpha = g^2 / (2 g^2 + g^3 sum_ab A_ab^k), g = dS/dA; M = sum_k w_k A^k, signed
    where A is. For g != 0 alpha is 1 / (2 + g sum A): computed so, since the powers underflow at gradients of 1e-15.
    variant `code` (the default: the authors' TensorFlow code, with which the published tables were most likely made)
    divides alpha by its sum over the cells with g > 0, so that M keeps the units of the score; `paper` does not, its M
    has no unit and its shape depends on the score's scale. Both leave out exp(S), one factor for the whole map.
    The formula has a pole at g sum A = -2, out of reach after a ReLU; where a channel's sum is negative we drop that
    term (alpha = 1/2), and say so in a note. alpha is derived for a head that is piecewise linear above the layer.
    Evidence: gradient_norm; smallest_sum, min_k sum A / sum |A|: 1 after a ReLU. UsageError for an unknown variant.
    differentiable: as in grad_cam.
    """
    known_name("variant", variant, VARIANTS)
    combine = partial(_grad_cam_pp, variant=variant)
    maps = _driven(model, images, target, layer, combine, _smallest_sum, differentiable)
    if bool((maps.evidence["smallest_sum"] < 0).any()):
        maps = replace(maps, notes=("a channel of the layer has a negative sum, where alpha is taken as 1/2",))
    return maps


def _grad_cam_pp(activations: Tensor, gradients: Tensor, variant: Variant) -> Tensor:
    positive = gradients.flatten(2).clamp_min(0)
    total = activations.flatten(2).sum(2, keepdim=True).clamp_min(0)
    alpha = 1 / (2 + positive * total)
    if variant == "code":
        alpha = alpha / (alpha * (positive > 0)).sum(2, keepdim=True).clamp_min(torch.finfo(alpha.dtype).tiny)
    return weighted((alpha * positive).sum(2), activations)


def _smallest_sum(_layer: Layer, activations: Tensor, _gradients: Tensor) -> dict[str, Tensor]:
    return {"smallest_sum": _balance(activations).amin(1)}


@method(
    title="XGrad-CAM",
    family="cam",
    rows=lambda _: (0, 1),
    resolution="layer",
    picture="positive",
    cost="1 gradient row (backward only down to the layer)",
    paper="Fu et al. 2020, arXiv:2008.02312, section 3",
    good_for="maps that sum to gradient times activation: conservation, for a ReLU network (Fu 2020)",
    not_for="layers with activations of both signs: it divides by their sum (its formula, Fu 2020)",
    randomization="not reported",
)
def xgrad_cam(model: VisionModel, images: Tensor, target: Target, *, layer: LayerChoice = None) -> Maps:
    """Grad-CAM whose average of the gradients is weighted by the activations, so that the map conserves their product.

    alpha_k = sum_ij (A_ij^k / sum_ab A_ab^k) g_ij^k; M = sum_k alpha_k A^k, (N, *grid), in score units, signed (the paper
    takes ReLU(M)). sum_ij M = sum_k <g^k, A^k>, the sum of the HiResCAM map. A channel that sums to zero gets no weight;
    we add no epsilon to the sum as the authors' code does (1e-6). The paper's sums are of activations >= 0: evidence
    smallest_sum, min_k |sum A| / sum |A|, is 1 there, and weights grow as its inverse. Evidence: gradient_norm too.
    """
    maps = _driven(model, images, target, layer, _xgrad_cam, _smallest_size)
    if bool((maps.evidence["smallest_sum"] < 1 - SAME).any()):
        maps = replace(maps, notes=("the layer has activations of both signs: weights divide by sums that cancel",))
    return maps


def _xgrad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    total = activations.flatten(2).sum(2)
    shared = (gradients * activations).flatten(2).sum(2)
    return weighted(torch.where(total == 0, 0, shared / total), activations)


def _smallest_size(_layer: Layer, activations: Tensor, _gradients: Tensor) -> dict[str, Tensor]:
    return {"smallest_sum": _balance(activations).abs().amin(1)}


@method(
    title="HiResCAM",
    family="cam",
    rows=lambda _: (0, 1),
    resolution="layer",
    picture="positive",
    cost="1 gradient row (backward only down to the layer)",
    paper="Draelos and Carin 2020, arXiv:2011.08891",
    good_for="only cells that the network used, proven for a head of one linear layer (Draelos 2020)",
    not_for="outlines of whole objects: Grad-CAM's maps are larger and smoother (Draelos 2020)",
    randomization="not reported",
)
def hires_cam(
    model: VisionModel, images: Tensor, target: Target, *, layer: LayerChoice = None, differentiable: bool = False
) -> Maps:
    """Gradient times activation at a layer, cell by cell: no average spreads a gradient to cells that lack it.

    M = sum_k g^k A^k, g = dS/dA, (N, *grid) at the layer's own grid, in score units, signed (the paper takes ReLU(M)).
    Where the head is one linear layer on the flattened cells, M sums to the score without its bias; where the gradient
    is the same in all cells it is Grad-CAM. Evidence: gradient_norm; uncanceled, max |M| / max sum_k |g^k A^k|.
    RefusalError where that is below 1e-3: a normalization of each cell follows (the last blocks of a ViT with a class
    token). The score does not depend on a cell's length there, so g . A is exactly 0 and what is left is rounding.
    differentiable: as in grad_cam.
    """
    return _driven(model, images, target, layer, hires_cam_map, _uncanceled, differentiable)


def hires_cam_map(activations: Tensor, gradients: Tensor) -> Tensor:
    """Gradient times activation, summed over channels: (N, *grid)."""
    return (gradients * activations).sum(1)


def _uncanceled(layer: Layer, activations: Tensor, gradients: Tensor) -> dict[str, Tensor]:
    products = (activations * gradients).flatten(2)
    total, left = products.abs().sum(1).amax(1), products.sum(1).abs().amax(1)
    if bool((left < SAME * total).any()):
        raise RefusalError(
            f"gradient times activation cancels at layer {layer.name!r}: their sum over channels is below {SAME:g} of its "
            "terms in every cell, as in front of a layer normalization. The map would be rounding errors: use grad_cam, or "
            "a layer behind the normalization (in a ViT the last block's norm1)."
        )
    return {"uncanceled": torch.where(total == 0, 1, left / total)}


def _driven(
    model: VisionModel,
    images: Tensor,
    target: Target,
    layer: LayerChoice,
    combine: Combine,
    measure: Measure = lambda *_: {},
    differentiable: bool = False,
) -> Maps:
    """One forward and one partial backward per image; the predicted class is settled in the same forward."""
    shape = tuple(images.shape[1:])
    chosen = model.find_layer(layer, shape, target)

    def run(part: slice, question: Target, rows: Tensor) -> Maps:
        (activations,), (gradients,), answer = model.activations_and_gradients(
            images[part], question, rows, [chosen], differentiable=differentiable
        )
        raw, evidence = combine(activations, gradients), {"gradient_norm": norm(gradients)}
        evidence |= measure(chosen, activations, gradients)
        return Maps(raw, answer.target, answer.values, table(answer.outputs), evidence, chosen)

    return by_groups(model, images, target, run, differentiable)


def weighted(weights: Tensor, activations: Tensor) -> Tensor:
    """The sum over k of w_k A^k: (N, K) and (N, K, *grid) -> (N, *grid)."""
    return (weights.view(_as_weights(activations)) * activations).sum(1)


def _as_weights(activations: Tensor) -> tuple[int, ...]:
    return (*activations.shape[:2], *[1] * (activations.ndim - 2))


def _balance(activations: Tensor) -> Tensor:
    """Of every channel, sum A / sum |A|: (N, K) in [-1, 1], 1 where all its activations are zero."""
    flat = activations.flatten(2)
    size = flat.abs().sum(2)
    return torch.where(size == 0, 1, flat.sum(2) / size)
