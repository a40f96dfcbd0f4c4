"""A network with softplus in place of its ReLUs: smooth enough for a second derivative, and harder to fool."""

import copy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.capture import SoftReLUs
from seewhy.errors import RefusalError, real_number
from seewhy.maps import MapFunction, Maps
from seewhy.model import VisionModel
from seewhy.target import Target
from seewhy.wrapping import with_module


def softened(model: VisionModel, beta: float) -> VisionModel:
    """The same network with every ReLU made smooth: its maps follow the curvature that can be abused less.

    softplus(x) = log(1 + exp(beta x)) / beta for ReLU(x), softplus(x) - softplus(x - 6) for ReLU6: at most log(2) / beta
    above it, the ReLU itself for beta -> infinity. A copy of the outermost module that shares all others and every weight
    with the user's, which is not touched; a network without a ReLU stays what it is. Its outputs are not those of the
    ReLU network: explain the class that *that* one predicts.
    Source: Dombrowski et al. 2019, arXiv:1906.07983, section 4.1: curvature, and with it how far an attack can move a map,
    falls with beta. UsageError for beta <= 0; RefusalError for scripted code, which hides its ReLUs.
    """
    real_number("beta", beta, at_least=0, above=True)
    return with_soft_relus(model, SoftReLUs(float(beta)))


def beta_smoothed(maps: MapFunction, beta: float) -> MapFunction:
    """The same maps, taken of the softened network: the defense of Dombrowski et al. 2019, section 5.

    The class is that which the network itself predicts: settle the target on it first (checks and attacks do).
    """
    real_number("beta", beta, at_least=0, above=True)

    def smoothed(model: VisionModel, images: Tensor, target: Target) -> Maps:
        twin = softened(model, beta)
        try:
            return maps(twin, images, target)
        finally:
            model.count(forward=twin.forward_rows, gradient=twin.gradient_rows)

    return smoothed


def with_soft_relus(model: VisionModel, relus: SoftReLUs) -> VisionModel:
    """The same, under a beta that may be changed between two forwards: `relus.beta`; `relus.calls` counts those of one."""
    module = model.module
    if any(isinstance(m, torch.jit.ScriptModule) for m in module.modules()):
        raise RefusalError(
            "scripted or traced code hides its ReLUs: they cannot be softened. Give the network as it was before scripting."
        )
    twin = copy.copy(module)
    twin.__dict__["forward"] = partial(_softly, twin, relus, module.__dict__.get("forward"))
    twin.__dict__["extra_repr"] = partial(_words, module.extra_repr(), relus)  # its fingerprint is another one
    return with_module(model, twin)


def _softly(module: nn.Module, relus: SoftReLUs, own: Any, *args: Any, **kwargs: Any) -> Any:
    """The module's own forward; `own`: one that another library has set on it."""
    relus.calls = 0
    with relus:
        return type(module).forward(module, *args, **kwargs) if own is None else own(*args, **kwargs)


def _words(own: str, relus: SoftReLUs) -> str:
    return ", ".join(filter(None, [own, f"softplus of beta {relus.beta:g} in place of every ReLU"]))
