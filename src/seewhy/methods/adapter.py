"""Attributions of captum as methods of ours, with their completeness measured by us."""

import inspect
import re
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.errors import RefusalError, UsageError, near_names
from seewhy.maps import Maps
from seewhy.methods.steps import Channels, by_groups, check_channels, clean_run, completeness, reduce_channels
from seewhy.model import VisionModel
from seewhy.normalization import normalized, pixels
from seewhy.registry import MethodInfo, declare
from seewhy.target import Target

OVER_A_DISTRIBUTION = ("DeepLiftShap", "GradientShap")  # their baselines are a sample, not one per image


def from_captum(attribution: type[Any], **arguments: Any) -> MethodInfo:
    """An input attribution of captum (`captum.attr.DeepLift`, `LRP`, `FeatureAblation`, ...) as a method for `explain`.

    M = what `attribution(module).attribute(z, target=class, **arguments)` gives, z the normalized image, its channels
    reduced by `channels`. arguments go to its constructor or to `attribute`, whichever knows them, in the network's own
    input space (`baselines`, `feature_mask`, `n_steps`, ...). Evidence: completeness_gap = |sum M - (S(x) - S(x'))| and
    completeness_gap_relative, from our own forwards, x' its `baselines` (zero where none is given; the mean score over
    them for DeepLiftShap and GradientShap). Rows that captum computes are counted. A group of images is given at once:
    where it takes `internal_batch_size` or `perturbations_per_eval`, those are its limits.
    UsageError for what is no attribution of captum, an argument that it does not take, or a target that is no class;
    RefusalError for an attribution of a layer or a neuron, whose map does not lie on the input.
    """
    _check(attribution)
    built, given = _split(attribution, arguments)
    title = attribution.__name__

    def method(model: VisionModel, images: Tensor, target: Target, *, channels: Channels = "sum") -> Maps:
        check_channels(channels)
        _check_question(title, target)

        def run(part: slice, chosen: Target, rows: Tensor) -> Maps:
            x = images[part].to(model.device)
            settled, values, outputs = clean_run(model, x, chosen, rows)
            z, own = (
                normalized(x, model.mean, model.std),
                {k: _of_part(k, v, part, len(images)) for k, v in given.items()},
            )
            shares = _attribute(model, attribution, built, own, z, settled.at(settled.index, rows))
            change = values - _base(model, title, own.get("baselines"), z, settled, rows)
            return Maps(reduce_channels(shares, channels), settled, values, outputs, completeness(shares, change))

        return by_groups(model, images, target, run)

    method.__name__ = "captum_" + re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", title).lower()
    method.__doc__ = f"{title} of captum on the network's own input; its sum is held against the score by seewhy."
    return declare(
        title=f"captum's {title}",
        family="adapter",
        resolution="input",
        picture="signed",
        cost="captum's own rows, counted as they run, + 2 forward rows",
        rows=lambda _: (2, 0),
        paper=f"captum.attr.{title}",
        good_for="what seewhy does not have itself: LRP, DeepLift, feature ablation",
        not_for="networks that captum cannot read: reused ReLUs in DeepLift, unknown layers in LRP (it says so itself)",
        randomization="as its method's",
        needs_gradients="GradientAttribution" in _ancestors(attribution),
    )(method)


def _ancestors(attribution: type[Any]) -> set[str]:
    return {ancestor.__name__ for ancestor in attribution.__mro__}


def _check(attribution: Any) -> None:
    if not isinstance(attribution, type) or not attribution.__module__.startswith("captum."):
        raise UsageError(f"from_captum takes a class of captum.attr, e.g. captum.attr.DeepLift; got {attribution!r}.")
    names = _ancestors(attribution)
    if "InternalAttribution" in names:
        raise RefusalError(
            f"{attribution.__name__} explains a layer or a neuron: its map does not lie on the input. Methods on a layer "
            "here: grad_cam, layer_cam, score_cam, ..."
        )
    attribute: Any = getattr(attribution, "attribute", None)
    of_network = list(inspect.signature(attribution).parameters)[:1] in (["model"], ["forward_func"])
    by_class = attribute is not None and "target" in inspect.signature(attribute).parameters
    if "Attribution" not in names or not of_network or not by_class:
        raise UsageError(
            f"{attribution.__name__} is no attribution of an input by a class: DeepLift, LRP, Occlusion are."
        )


def _split(attribution: Any, arguments: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments of the constructor, and of `attribute`."""
    constructor = list(inspect.signature(attribution.__init__).parameters)[2:]  # after self and the model
    attribute = list(inspect.signature(attribution.attribute).parameters)[2:]  # after self and the inputs
    for name in arguments:
        if name not in (*constructor, *attribute) or name in ("target", "additional_forward_args", "kwargs"):
            known = [n for n in (*constructor, *attribute) if n not in ("target", "additional_forward_args", "kwargs")]
            raise UsageError(f"{attribution.__name__} of captum takes no {name!r}: {near_names(name, known)}")
    built = {name: value for name, value in arguments.items() if name in constructor}
    return built, {name: value for name, value in arguments.items() if name not in built}


def _check_question(title: str, target: Target) -> None:
    if target.kind not in ("predicted", "index") or target.scale not in (None, "logit", "output"):
        raise UsageError(
            f"captum's {title} explains the network's own output for a class; give one, not the {target.text(0, None)}."
        )
    if target.beside is not None:
        raise UsageError(
            f"captum's {title} is given one input here; methods of seewhy take what lies beside the image."
        )
    if target.task == "binary":
        raise UsageError(f"captum's {title} knows no class 0 of a network with one logit: use a method of seewhy.")


class _Counted(nn.Module):
    """The user's network; tells how many rows it computes."""

    def __init__(self, model: VisionModel) -> None:
        super().__init__()
        self.inner, self._model = model.module, [model]

    def forward(self, z: Tensor) -> Any:
        with_gradient = torch.is_grad_enabled() and z.requires_grad
        self._model[0].count(**{"gradient" if with_gradient else "forward": len(z)})
        network = self._model[0].network
        outputs = network.run(z, {})
        table = network.logits(outputs)
        return outputs if table is None else table


def _attribute(
    model: VisionModel, attribution: type[Any], built: dict[str, Any], own: dict[str, Any], z: Tensor, classes: Tensor
) -> Tensor:
    made: Any = attribution
    with model.guarded(), torch.enable_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Setting (forward|backward)")  # hooks, taken off again by captum
        warnings.filterwarnings("ignore", message="Input Tensor .* did not already require gradients")
        network = _Counted(model)
        network.training = False
        found = made(network, **built).attribute(z.detach().clone(), target=classes, **own)
    if isinstance(found, tuple):
        found = found[0]
    return torch.as_tensor(found).detach().float().expand_as(z)


def _base(model: VisionModel, title: str, baselines: Any, z: Tensor, target: Target, rows: Tensor) -> Tensor:
    """S(x') for every image, (g,)."""
    if title in OVER_A_DISTRIBUTION and isinstance(baselines, Tensor):
        scores = [
            clean_run(model, pixels(b.expand_as(z), model.mean, model.std), target, rows)[1] for b in baselines.to(z)
        ]
        return torch.stack(scores).mean(0)
    start = torch.zeros_like(z) + (0 if baselines is None else torch.as_tensor(baselines).to(z))
    return clean_run(model, pixels(start, model.mean, model.std), target, rows)[1]


def _of_part(name: str, value: Any, part: slice, n: int) -> Any:
    """An argument for some of the images: a tensor with a row per image is cut like them."""
    per_image = (
        isinstance(value, Tensor) and value.ndim == 4 and len(value) == n and name in ("baselines", "feature_mask")
    )
    return value[part] if per_image else value
