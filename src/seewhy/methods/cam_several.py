"""Class activation maps over several layers (LayerCAM) or several classes (Finer-CAM)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from seewhy.data.geometry import resize
from seewhy.errors import UsageError, known_name, real_number, whole_number
from seewhy.layers import Layer
from seewhy.maps import Maps
from seewhy.methods.cam import VARIANTS, LayerChoice, Variant, grad_cam_map, hires_cam_map
from seewhy.methods.steps import by_groups, norm, per_image, table
from seewhy.model import VisionModel
from seewhy.registry import method
from seewhy.target import Target, of, scores

Fusion = Literal["paper", "all", "none"]
FUSIONS = ("paper", "all", "none")
SHALLOW = 4  # a grid this many times finer than the last one's; of VGG16's five stages the first three, as in the paper


@method(
    title="LayerCAM",
    family="cam",
    rows=lambda _: (0, 1),
    resolution="layer",
    picture="positive",
    cost="1 gradient row (backward only down to the first layer)",
    paper="Jiang et al. 2021, LayerCAM, IEEE Transactions on Image Processing 30, equation 9",
    good_for="fine detail from early layers, alone or fused with late ones (Jiang 2021)",
    not_for="the layer before a max-pooling or a strided convolution: it shows a grid (the authors' README)",
    randomization="not reported",
)
def layer_cam(
    model: VisionModel,
    images: Tensor,
    target: Target,
    *,
    layer: LayerChoice = None,
    fusion: Fusion = "paper",
    gamma: float = 2,
    differentiable: bool = False,
) -> Maps:
    """Activations weighted in each cell by the positive part of their own gradient; of one layer or several fused.

    M = sum_k ReLU(g^k) A^k, g = dS/dA. One layer: (N, *grid), in score units, signed where A is (the paper takes ReLU).
    layer, a list: M' = ReLU(M) / max ReLU(M) of each, bilinear to the finest grid, then the maximum over layers: in
    [0, 1], no unit. fusion says which M' are first scaled to tanh(gamma M'): `paper` those of shallow layers (grid at
    least 4 times finer than the last layer's, by which VGG16 gets the paper's first three stages), `all` as torchcam
    does, `none` as in the authors' code. Evidence: gradient_norm over all layers. UsageError for an unknown fusion,
    gamma <= 0. differentiable: as in grad_cam.
    """
    known_name("fusion", fusion, FUSIONS)
    real_number("gamma", gamma, at_least=0, above=True)
    chosen = model.find_layers(layer, tuple(images.shape[1:]), target)
    finest = max(chosen, key=lambda found: _grid(found).numel())
    names = ", ".join(found.name for found in chosen)
    notes = (f"fused from layers {names}",) if len(chosen) > 1 else ()

    def run(part: slice, question: Target, rows: Tensor) -> Maps:
        activations, gradients, answer = model.activations_and_gradients(
            images[part], question, rows, chosen, differentiable=differentiable
        )
        alone = [hires_cam_map(a, g.clamp_min(0)) for a, g in zip(activations, gradients, strict=True)]
        raw = alone[0] if len(alone) == 1 else _fused(alone, _grid(finest), fusion, gamma)
        slope = norm(torch.cat([g.flatten(1) for g in gradients], 1))
        return Maps(
            raw, answer.target, answer.values, table(answer.outputs), {"gradient_norm": slope}, finest, notes=notes
        )

    return by_groups(model, images, target, run, differentiable)


def _grid(layer: Layer) -> torch.Size:
    assert layer.form is not None, "a layer with a map is spatial"
    return torch.Size(layer.form.grid)


def _fused(alone: Sequence[Tensor], size: torch.Size, fusion: Fusion, gamma: float) -> Tensor:
    """Maps (N, *grid) of several layers, in order of execution, as one (N, *size) in [0, 1]."""
    resized = []
    for each in alone:
        largest = each.flatten(1).amax(1).clamp_min(torch.finfo(each.dtype).tiny)
        share = each.clamp_min(0) / per_image(largest, each)
        finer = min(a / b for a, b in zip(each.shape[1:], alone[-1].shape[1:], strict=True))
        if fusion == "all" or (fusion == "paper" and finer >= SHALLOW):
            share = torch.tanh(gamma * share)
        resized.append(resize(share, size))
    return torch.stack(resized).amax(0)


@method(
    title="Finer-CAM",
    family="cam",
    rows=lambda _: (0, 1),
    resolution="layer",
    picture="positive",
    cost="1 gradient row (backward only down to the layer)",
    paper="Zhang et al. 2025, arXiv:2501.11309",
    good_for="what tells a class from those that look like it (Zhang 2025)",
    not_for="whole objects: what similar classes share is taken out on purpose (Zhang 2025)",
    randomization="not reported",
)
def finer_cam(
    model: VisionModel,
    images: Tensor,
    target: Target,
    *,
    layer: LayerChoice = None,
    gamma: float = 1,
    references: int = 3,
    variant: Variant = "paper",
) -> Maps:
    """Grad-CAM of a class against the classes most similar to it: what they share cancels.

    M = Grad-CAM of S_c - gamma * mean_t S_dt, d_t the `references` classes (all, if there are fewer) whose clean logits
    are closest to the class's, above or below, settled in the same forward; in score units, signed. variant `code`
    weights S_dt by softmax probabilities within the references, as the authors' code does (the gradient goes through
    the weights, too); its strength is gamma = 1, torchcam's 0.6. The class itself is never its own reference (in the
    authors' code it is one where two logits are equal). The explained number stays the class's own. Evidence:
    gradient_norm; contrast, the number whose map it is; reference_1, ... the classes. UsageError for a target that is
    not one class, for one logit (its other class is its negative: Grad-CAM), gamma < 0, references < 1.
    """
    known_name("variant", variant, VARIANTS)
    real_number("gamma", gamma, at_least=0)
    whole_number("references", references, at_least=1)
    if target.kind not in ("predicted", "index") or target.task in ("binary", "regression"):
        raise UsageError(
            "finer_cam compares one class with similar ones: its target is a class of a network with several. For "
            "another question use grad_cam; for two given classes, grad_cam with sw.target.margin(a, b)."
        )
    chosen = model.find_layer(layer, tuple(images.shape[1:]), target)

    def run(part: slice, question: Target, rows: Tensor) -> Maps:
        asked: list[tuple[Target, Tensor, Tensor]] = []

        def contrast(outputs: Any) -> Tensor:
            settled = question.settle(outputs, rows)
            own, others = settled(outputs, rows), _most_similar(settled, outputs, rows, references)
            asked.append((settled, own.detach().float(), others))
            return own - gamma * _mean_score(settled, outputs, rows, others, variant)

        (activations,), (gradients,), answer = model.activations_and_gradients(
            images[part], of(contrast), rows, [chosen]
        )
        settled, own, others = asked[0]
        evidence = {"gradient_norm": norm(gradients), "contrast": answer.values}
        evidence |= {f"reference_{t}": other for t, other in enumerate(others.unbind(1), 1)}
        return Maps(grad_cam_map(activations, gradients), settled, own, table(answer.outputs), evidence, chosen)

    return by_groups(model, images, target, run)


def _most_similar(settled: Target, outputs: Any, rows: Tensor, references: int) -> Tensor:
    """(R, T): the classes whose logits are closest to the explained one's, closest first."""
    logits = scores(outputs).detach()
    if logits.shape[1] < 2:
        raise UsageError("finer_cam compares classes; this network has one output. Use grad_cam.")
    own = settled.at(settled.index, rows).view(-1, 1)
    distance = (logits - logits.gather(1, own)).abs().scatter(1, own, torch.inf)
    return distance.argsort(stable=True, dim=1)[:, : min(references, logits.shape[1] - 1)]


def _mean_score(settled: Target, outputs: Any, rows: Tensor, others: Tensor, variant: Variant) -> Tensor:
    """(R,): the references' scores, averaged; on the scale that is asked."""
    each = torch.stack([replace(settled, index=other)(outputs, rows) for other in others.unbind(1)], 1)
    return each.mean(1) if variant == "paper" else (scores(outputs).gather(1, others).softmax(1) * each).sum(1)
