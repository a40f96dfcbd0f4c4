"""Does the map account for the score: how far its sum is from the change that it claims to share out."""

import math

import torch
from torch import Tensor

from seewhy.checks.result import CheckResult, Verdict, check, excluded, score
from seewhy.errors import real_number
from seewhy.maps import MapFunction, why_unusable
from seewhy.model import VisionModel
from seewhy.target import Target

LEVELS = {"debugging": 0.05, "compliance": 0.01, "four decimals": 5e-5}  # of the change of the score


@check(
    title="Completeness",
    question="do the parts of the map sum to the score that they explain?",
    cost="one map an image",
    paper="Sundararajan et al. 2017, arXiv:1703.01365, proposition 1 and section 5 (5 %)",
)
def completeness(
    model: VisionModel, images: Tensor, target: Target, maps: MapFunction, *, level: float = 0.05
) -> CheckResult:
    """How far the sum of each map is from the change of the score that it shares out.

    gap = |sum M - (S(x) - S(x'))|, in the score's own units, and relative, gap / |S(x) - S(x')|: 0 where both vanish, inf
    where only the change does. The method states both from forwards of its own (`completeness_gap`); a method that claims no
    sum has none, and the check has no verdict. Pass: every image's relative gap is at most `level` (0.05 for debugging, 0.01
    for compliance, 5e-5 for four decimals). Where the score hardly changes between baseline and image, the relative gap has
    no meaning: the absolute one stands beside it. UsageError for a level that is not a number above 0.
    """
    real_number("level", level, at_least=0, above=True)
    found = maps(model, images, target)
    if "completeness_gap_relative" not in found.evidence:
        return CheckResult(
            "completeness", (), Verdict.NONE, "The method does not claim that its parts sum to anything."
        )
    why = why_unusable(found)
    usable = torch.tensor([not reason or reason in ("zero", "constant") for reason in why])
    absolute, relative = (
        torch.where(usable, found.evidence[name].double().cpu(), math.nan)
        for name in ("completeness_gap", "completeness_gap_relative")
    )
    known = relative[usable]
    within = int((known <= level).sum())
    named = {value: name for name, value in LEVELS.items()}.get(level)
    sentence = (
        f"{within} of {len(known)} maps sum to the change of the score within {100 * level:g} %"
        + (f" ({named})" if named else "")
        + (f"; the largest gap is {100 * float(known.max()):.2g} %." if len(known) else ".")
    )
    verdict = Verdict.NOT_VALID if not len(known) else Verdict.PASS if within == len(known) else Verdict.FAIL
    scores = (
        score("completeness_gap_relative", relative, "lower", "share of the change of the score"),
        score("completeness_gap", absolute, "lower", "the score's own unit"),
    )
    return CheckResult(
        "completeness",
        scores,
        verdict,
        sentence,
        excluded=excluded([reason if not ok else "" for reason, ok in zip(why, usable.tolist(), strict=True)]),
        details={"levels": {name: int((known <= value).sum()) for name, value in LEVELS.items()}, "n": len(known)},
    )
