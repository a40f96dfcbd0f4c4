"""A network that ends in softmax or sigmoid: which scale is asked for then, and what is said of it."""

from collections.abc import Sequence

from torch import Tensor

from seewhy.maps import Maps
from seewhy.model import VisionModel
from seewhy.reading import Ending
from seewhy.registry import Scale
from seewhy.target import Target

FITTING = {"softmax": ("multiclass",), "log_softmax": ("multiclass",), "sigmoid": ("multilabel", "binary")}


def scale_of(model: VisionModel, shape: Sequence[int], target: Target, usual: Scale) -> Scale:
    """The scale on which a target is read: its own, or the method's usual one.

    Where the logits of a softmax cannot be reached, a logit is asked for as what is left of it, its log-probability.
    """
    scale = target.scale or usual
    if scale != "logit" or target.kind not in ("predicted", "index"):
        return scale
    ending = model.reading(shape).ending
    lost = ending is not None and not ending.reached and ending.kind != "sigmoid"
    return "log_probability" if lost else scale


def logits_in_words(ending: Ending | None) -> str:
    """Where the logits were read; nothing of a network that gives them itself."""
    if ending is None:
        return ""
    name = ending.kind.replace("_", "-")
    if ending.reached:
        return f"logits were read in front of the network's own {name}"
    if ending.kind == "sigmoid":
        return "logits were computed back from the network's own sigmoid, log p - log(1 - p)"
    return f"the network ends in {name}: log-probabilities stand for its logits"


def warnings_of(model: VisionModel, ending: Ending | None, maps: Maps, p: Tensor | None) -> list[str]:
    """What a user must know who asks such a network: a task that does not fit, a gradient that the ending swallows."""
    if ending is None:
        return []
    found, name = [], ending.kind.replace("_", "-")
    if model.task not in FITTING[ending.kind]:
        fitting = " or ".join(f"task='{task}'" for task in FITTING[ending.kind])
        sums = "probabilities that do not sum to 1" if ending.kind == "sigmoid" else "probabilities that sum to 1"
        found.append(f"the network ends in {name}, {sums}, but its task is {model.task}: wrap it with {fitting}")
    slope = maps.evidence.get("gradient_norm")
    if not ending.reached and p is not None and slope is not None and ending.kind != "log_softmax":
        surest = int(p.amax(1).argmax())
        found.append(
            f"the network ends in {name} and its logits cannot be reached: near p = 0 and p = 1 the gradient is lost in "
            f"rounding (here p = {float(p[surest].amax()):.4f}, gradient norm {float(slope[surest]):.1g})"
        )
    return found
