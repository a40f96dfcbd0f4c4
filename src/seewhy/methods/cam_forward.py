"""Class activation maps without a gradient: from the activations alone, or from what the network says without them."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from seewhy.data.geometry import resize
from seewhy.errors import known_name
from seewhy.layers import Layer
from seewhy.maps import Maps
from seewhy.methods.cam import LayerChoice, weighted
from seewhy.methods.steps import background, by_groups, per_image, table
from seewhy.model import VisionModel
from seewhy.registry import method
from seewhy.target import Target

ScoreWeights = Literal["class_softmax", "increase", "channel_softmax"]
AblationWeights = Literal["drop", "relative", "slope"]
SCORE_WEIGHTS, ABLATION_WEIGHTS = ("class_softmax", "increase", "channel_softmax"), ("drop", "relative", "slope")
Ask = Callable[[Tensor, Tensor], Tensor]  # image and channel of each row, (R,) and (R,) -> its number, (R,)


@method(
    title="Eigen-CAM",
    family="cam",
    rows=lambda _: (1, 0),
    resolution="layer",
    picture="positive",
    cost="1 forward row",
    paper="Muhammad and Yeasin 2020, arXiv:2008.00299",
    uses_target=False,
    needs_gradients=False,
    good_for="what a layer encodes most strongly, also where the class is wrong (Muhammad 2020)",
    not_for="why this class: no class, score or later layer enters (its formula, Muhammad 2020)",
    randomization="not reported; whatever lies above its layer cannot change it, by construction",
    warning="class-agnostic: it shows what the layer encodes most strongly, not why the network decided as it did",
)
def eigen_cam(
    model: VisionModel,
    images: Tensor,
    target: Target,
    *,
    layer: LayerChoice = None,
    centered: bool = False,
    ignore_target: bool = False,
) -> Maps:
    """What a layer encodes most strongly: its cells projected on their first principal direction, whatever the class.

    A = U S V^T, A the (cells x channels) activations of one image; M = A v_1 = s_1 u_1, (N, *grid), in the unit of the
    activations. centered=True subtracts each channel's mean first, as pytorch-grad-cam does; the paper does not.
    The sign of v_1 is arbitrary; ours is fixed: M sums to >= 0, and where it is centered (sums to 0) its largest
    magnitude is positive. Some products offer this map as an explanation of the class (AWS SageMaker Autopilot's
    explainability report): no class enters it. Evidence: first_share, s_1^2 / sum s^2; near 1 / (number of directions)
    the direction is arbitrary. ignore_target: see sw.explain.
    """
    del ignore_target
    chosen = model.find_layer(layer, tuple(images.shape[1:]), target)

    def run(part: slice, question: Target, rows: Tensor) -> Maps:
        (activations,), answer = model.activations(images[part], question, rows, [chosen])
        raw, share = _first_component(activations, centered)
        return Maps(raw, answer.target, answer.values, table(answer.outputs), {"first_share": share}, chosen)

    return by_groups(model, images, target, run)


def _first_component(activations: Tensor, centered: bool) -> tuple[Tensor, Tensor]:
    """(N, *grid): s_1 u_1 of the cells; (N,): its share of the sum of squares. Zero where nothing is finite."""
    cells = activations.flatten(2).transpose(1, 2)
    cells = cells - cells.mean(1, keepdim=True) if centered else cells
    finite = cells.isfinite().flatten(1).all(1)
    u, s, _ = torch.linalg.svd(torch.where(per_image(finite, cells), cells, 0), full_matrices=False)
    first = u[:, :, 0] * s[:, :1]
    sign = first.gather(1, first.abs().argmax(1, keepdim=True)) if centered else first.sum(1, keepdim=True)
    first = torch.where(sign < 0, -first, first)
    first = torch.where(finite[:, None], first, torch.nan)
    relative = s / s[:, :1].clamp_min(torch.finfo(s.dtype).tiny)
    share = 1 / relative.square().sum(1).clamp_min(1)
    return first.view(len(first), *activations.shape[2:]), share


@method(
    title="Score-CAM",
    family="cam",
    scale="probability",
    rows=lambda p: (p["channels"] + 1 + (p["weights"] == "increase"), 0),
    resolution="layer",
    picture="positive",
    cost="channels of the layer + 1 forward rows (2048 channels on ResNet-50), constant channels less",
    paper="Wang et al. 2020, arXiv:1910.01279, and the authors' code; equation 10; algorithm 1",
    needs_gradients=False,
    good_for="weights that no gradient's noise or saturation spoils (Wang 2020)",
    not_for="many images: a forward for every channel of the layer (Wang 2020, algorithm 1)",
    randomization="passes cascading randomization (Wang 2020)",
)
def score_cam(
    model: VisionModel,
    images: Tensor,
    target: Target,
    *,
    layer: LayerChoice = None,
    weights: ScoreWeights = "class_softmax",
    baseline: str | Tensor = "normalization_mean",
) -> Maps:
    """Activations weighted by what the network says when it is shown only where they are high.

    M_k = A^k upsampled (n-linear, half-pixel) and stretched to [0, 1]; f_k = f(M_k x + (1 - M_k) x'), x' the baseline
    (the default: zero after normalization, as in the paper). M = sum_k alpha_k A^k, (N, *grid), signed.
    weights, of which the paper gives three: `class_softmax` alpha_k = f_k, the class probability (or the target on its
    own scale), no baseline: the authors' code and our default; `increase` alpha_k = f_k - f(x'), equation 10, one more
    row; `channel_softmax` alpha = softmax over the channels of the logits f_k, algorithm 1, where f(x') cancels.
    Channels that are constant show nothing: weight 0 and no row, as in the authors' code. We combine at the layer's own
    grid; the authors upsample first, which is the same up to the linear resizing. Evidence: forward_rows; live_channels.
    UsageError for unknown weights or baseline; RefusalError for a color in pixel space where bounds are unknown.
    """
    known_name("weights", weights, SCORE_WEIGHTS)
    fill = background(model, images, baseline)
    chosen = model.find_layer(layer, tuple(images.shape[1:]), target)

    def run(part: slice, question: Target, rows: Tensor) -> Maps:
        x, empty = images[part].to(model.device), fill[part]
        (activations,), answer = model.activations(x, question, rows, [chosen])
        asked = (
            answer.target.on("logit")
            if weights == "channel_softmax" and answer.target.scale != "output"
            else answer.target
        )

        def ask(which: Tensor, channels: Tensor) -> Tensor:
            masks = _stretched(activations[which, channels, None], x.shape[2:])
            return model.answer(empty[which] + masks * (x[which] - empty[which]), asked, which, folded=True).values

        flat = activations.flatten(2)
        live = flat.amax(2) > flat.amin(2)
        alpha = _of_channels(model, x, live, ask)
        if weights == "increase":
            alpha = torch.where(live, alpha - model.answer(empty, asked, rows).values[:, None], 0)
        elif weights == "channel_softmax":
            alpha = alpha.masked_fill(~live, -torch.inf).softmax(1).nan_to_num(0.0)
        evidence = {"forward_rows": live.sum(1) + 1 + (weights == "increase"), "live_channels": live.sum(1)}
        raw = weighted(alpha, activations)
        return Maps(raw, answer.target, answer.values, table(answer.outputs), evidence, chosen)

    return by_groups(model, images, target, run)


def _stretched(activations: Tensor, size: torch.Size) -> Tensor:
    """One channel a row, (R, 1, *grid), as masks (R, 1, *size): upsampled, then min-max to [0, 1]."""
    masks = resize(activations[:, 0], size)[:, None]
    low, high = masks.flatten(1).amin(1), masks.flatten(1).amax(1)
    spread = (high - low).clamp_min(torch.finfo(masks.dtype).tiny)
    return (masks - per_image(low, masks)) / per_image(spread, masks)


@method(
    title="Ablation-CAM",
    family="cam",
    rows=lambda p: (p["channels"] + 1, 0),
    resolution="layer",
    picture="positive",
    cost="channels of the layer + 1 forward rows, dead channels less",
    paper="Desai and Ramaswamy 2020, Ablation-CAM, WACV 2020",
    needs_gradients=False,
    good_for="saturated scores, where the gradient says nothing (Desai 2020)",
    not_for="many images: hundreds of forwards for each (Fu 2020, arXiv:2008.02312)",
    randomization="not reported",
)
def ablation_cam(
    model: VisionModel,
    images: Tensor,
    target: Target,
    *,
    layer: LayerChoice = None,
    weights: AblationWeights = "drop",
) -> Maps:
    """Activations weighted by how far the score falls when their channel is set to zero.

    S_k = the score with A^k = 0, everything else as it is; M = sum_k w_k A^k, (N, *grid), signed.
    weights: `drop` w_k = S - S_k, our default, in score units. `relative` w_k = (S - S_k) / S, the paper's and
    pytorch-grad-cam's: the same picture where S > 0, but turned upside down where the logit S is negative, which a note
    then says. `slope` w_k = (S - S_k) / ||A^k||, the slope that the paper starts from, norm L2. Zero is the paper's
    ablation; pytorch-grad-cam puts min A - 1e7 where the layer's smallest activation is not 0, far from any activation
    that the network has seen. Channels that are zero anyway cost no row and weigh 0. Evidence: forward_rows;
    live_channels. UsageError for unknown weights.
    """
    known_name("weights", weights, ABLATION_WEIGHTS)
    chosen = model.find_layer(layer, tuple(images.shape[1:]), target)

    def run(part: slice, question: Target, rows: Tensor) -> Maps:
        x = images[part].to(model.device)
        (activations,), answer = model.activations(x, question, rows, [chosen])
        size = torch.linalg.vector_norm(activations.flatten(2), dim=2)
        live = activations.flatten(2).abs().amax(2) > 0
        without = _of_channels(model, x, live, lambda which, k: _without(model, x, answer.target, chosen, which, k))
        score = answer.values[:, None]
        fall = torch.where(live, score - without, 0)
        if weights != "drop":
            by = size if weights == "slope" else score
            fall = torch.where(by == 0, 0, fall / by)
        upside_down = weights == "relative" and bool((score <= 0).any())
        notes = ("a score is not positive: divided by it, its map has the opposite sign",) if upside_down else ()
        evidence = {"forward_rows": live.sum(1) + 1, "live_channels": live.sum(1)}
        raw = weighted(fall, activations)
        return Maps(raw, answer.target, answer.values, table(answer.outputs), evidence, chosen, notes=notes)

    return by_groups(model, images, target, run)


def _without(model: VisionModel, x: Tensor, target: Target, layer: Layer, which: Tensor, channels: Tensor) -> Tensor:
    """(R,): what the target says of image which[r] with the layer's channel channels[r] at zero."""

    def edit(cells: Tensor) -> Tensor:
        kept = torch.ones(cells.shape[:2], dtype=cells.dtype, device=cells.device)
        kept[torch.arange(len(cells), device=cells.device), channels] = 0
        return torch.where(kept.view(*kept.shape, *[1] * (cells.ndim - 2)) > 0, cells, 0)

    return model.answer_with_edit(x[which], target, which, layer, edit).values


def _of_channels(model: VisionModel, x: Tensor, live: Tensor, ask: Ask) -> Tensor:
    """(g, K): one number for every live channel of g images, one forward row each; 0 for the others."""
    found = torch.zeros(live.shape, dtype=torch.float32, device=x.device)
    images, channels = live.nonzero(as_tuple=True)

    def run(part: slice) -> None:
        which, k = images[part], channels[part]
        found[which, k] = ask(which, k)

    model.in_batches(len(images), x.shape[1:], run)
    return found
