"""Other rules for the gradient at every ReLU: guided backpropagation and its siblings."""

from dataclasses import replace

import torch
from torch import Tensor

from seewhy.answers import Answer
from seewhy.capture import Rule
from seewhy.data.geometry import resize
from seewhy.maps import Maps
from seewhy.methods.cam import LayerChoice, grad_cam
from seewhy.methods.steps import Channels, by_groups, check_channels, norm, reduce_channels, table
from seewhy.model import VisionModel
from seewhy.registry import method
from seewhy.target import Target

MORE_IMAGE_THAN_MODEL = (
    "explains the image more than the model: it partly restores the picture and hardly depends on the class or on higher "
    "layers (Adebayo 2018; Nie 2018)"
)


@method(
    title="Guided Backpropagation",
    family="gradient",
    resolution="input",
    picture="magnitude",
    cost="1 gradient row",
    rows=lambda _: (0, 1),
    paper="Springenberg et al. 2014, arXiv:1412.6806, section 3.4",
    good_for="sharp pictures of what single units respond to (Springenberg 2014)",
    not_for="explaining a class: hardly depends on it (Nie 2018, arXiv:1805.07039)",
    randomization="fails: invariant to the higher layers' weights (Adebayo 2018)",
    needs_relu=True,
    warning=MORE_IMAGE_THAN_MODEL,
)
def guided_backprop(model: VisionModel, images: Tensor, target: Target, *, channels: Channels = "sum") -> Maps:
    """The gradient with two gates at every ReLU: its own, and one for what arrives with a negative sign.

    R^l = 1[f^l > 0] 1[R^(l+1) > 0] R^(l+1) at each ReLU, ordinary backpropagation elsewhere; M = R^0, in no unit (it is
    no derivative of anything). A ReLU6 passes where 0 < f < 6. Every call of every ReLU is gated, module or function;
    activations that are none (GELU, SiLU) keep their gradient and are named. Evidence: gradient_norm, relus_gated.
    RefusalError on a network without a ReLU, where this would be the plain gradient under another name.
    """
    return _ruled(model, images, target, channels, "guided")


@method(
    title="DeconvNet",
    family="gradient",
    resolution="input",
    picture="magnitude",
    cost="1 gradient row",
    rows=lambda _: (0, 1),
    paper="Zeiler and Fergus 2014, arXiv:1311.2901, section 2.1",
    good_for="what single units respond to (Zeiler and Fergus 2014)",
    not_for="explaining a class: hardly depends on it (Nie 2018, arXiv:1805.07039)",
    randomization="not tested by Adebayo 2018; converges to what does not depend on later layers (Sixt 2020)",
    needs_relu=True,
    warning=MORE_IMAGE_THAN_MODEL,
)
def deconvnet(model: VisionModel, images: Tensor, target: Target, *, channels: Channels = "sum") -> Maps:
    """The gradient with the ReLU applied to the signal on its way back instead of its own gate.

    R^l = 1[R^(l+1) > 0] R^(l+1) at each ReLU, ordinary backpropagation elsewhere (max-pooling keeps its switches);
    M = R^0. Coverage, evidence and refusal as in guided_backprop.
    """
    return _ruled(model, images, target, channels, "deconvnet")


@method(
    title="Guided Grad-CAM",
    family="gradient",
    resolution="input",
    picture="magnitude",
    cost="2 gradient rows",
    rows=lambda _: (0, 2),
    paper="Selvaraju et al. 2017, arXiv:1610.02391, section 3.2",
    good_for="detail inside the region of a class, for the eye (Selvaraju 2017)",
    not_for="evidence: within the region it is guided backpropagation (Adebayo 2018)",
    randomization="fails: invariant to the higher layers' weights (Adebayo 2018)",
    needs_relu=True,
    warning=MORE_IMAGE_THAN_MODEL,
)
def guided_grad_cam(
    model: VisionModel, images: Tensor, target: Target, *, layer: LayerChoice = None, channels: Channels = "sum"
) -> Maps:
    """Guided backpropagation inside the region that Grad-CAM marks.

    M = R^0 * resize(ReLU(L)), L the Grad-CAM of `layer` (None: the default layer), resized n-linearly by the half-pixel
    rule (captum takes the nearest cell). 0 wherever Grad-CAM is not positive. Evidence: relus_gated, and gradient_norm
    at the layer. RefusalError as in guided_backprop and grad_cam.
    """
    check_channels(channels)

    def run(part: slice, chosen: Target, rows: Tensor) -> Maps:
        x = images[part].to(model.device)
        coarse = grad_cam(model, x, chosen, layer=layer)
        signal, answer = model.input_gradients(x, coarse.target, rows, "guided")
        region = resize(coarse.raw.clamp_min(0), tuple(x.shape[2:]))[:, None]
        evidence = {**coarse.evidence, **_gated(answer)}
        raw = reduce_channels(signal * region, channels)
        return replace(coarse, raw=raw, evidence=evidence, notes=(*coarse.notes, *_not_covered(answer)))

    return by_groups(model, images, target, run)


def _ruled(model: VisionModel, images: Tensor, target: Target, channels: str, rule: Rule) -> Maps:
    check_channels(channels)

    def run(part: slice, chosen: Target, rows: Tensor) -> Maps:
        signal, answer = model.input_gradients(images[part], chosen, rows, rule)
        evidence = {"gradient_norm": norm(signal), **_gated(answer)}
        raw, outputs = reduce_channels(signal, channels), table(answer.outputs)
        return Maps(raw, answer.target, answer.values, outputs, evidence, notes=_not_covered(answer))

    return by_groups(model, images, target, run)


def _gated(answer: Answer) -> dict[str, Tensor]:
    assert answer.gates is not None, "a rule was set"
    return {"relus_gated": torch.full((len(answer.values),), answer.gates.relus, device=answer.values.device)}


def _not_covered(answer: Answer) -> tuple[str, ...]:
    assert answer.gates is not None, "a rule was set"
    named = ", ".join(answer.gates.not_covered)
    return (f"not gated, because they are no ReLUs: {named}",) if named else ()
