"""Class activation maps: `combine(activations, gradients) -> (N, *grid)` over one shared driver."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from seewhy.methods.maps import Maps, by_groups, norm, table
from seewhy.model import VisionModel
from seewhy.registry import method
from seewhy.target import Target

Combine = Callable[[Tensor, Tensor], Tensor]
LayerChoice = str | nn.Module | Sequence[str | nn.Module] | None


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
def grad_cam(model: VisionModel, images: Tensor, target: Target, *, layer: LayerChoice = None) -> Maps:
    """Which cells of a layer speak for the class: activations weighted by their mean gradient.

    alpha_k = 1/Z sum_ij dS/dA_ij^k; M = sum_k alpha_k A^k, (N, *grid) at the layer's own grid, in score units. The paper
    takes ReLU(M); we keep M signed (pictures draw the positive part, status `all_negative` says when there is none).
    layer: a name or a module; None takes the model's default layer. Evidence: gradient_norm at the layer.
    """
    return _driven(model, images, target, layer, _grad_cam)


def _grad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    weights = gradients.flatten(2).mean(2)
    return (weights.view(*weights.shape, *[1] * (activations.ndim - 2)) * activations).sum(1)


def _driven(model: VisionModel, images: Tensor, target: Target, layer: LayerChoice, combine: Combine) -> Maps:
    """One forward and one partial backward per image; the predicted class is settled in the same forward."""
    shape = tuple(images.shape[1:])
    chosen = model.find_layer(layer, shape, target)

    def run(part: slice, question: Target, rows: Tensor) -> Maps:
        (activations,), (gradients,), answer = model.activations_and_gradients(images[part], question, rows, [chosen])
        raw, evidence = combine(activations, gradients), {"gradient_norm": norm(gradients)}
        return Maps(raw, answer.target, answer.values, table(answer.outputs), evidence, chosen)

    return by_groups(model, images, target, run)
