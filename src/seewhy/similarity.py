"""How alike two maps are: rank correlation (signed, and of absolute values), structural similarity, HOG correlation."""

import torch
from scipy import stats
from torch import Tensor


def rank_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Spearman correlation of (g, ...) with (g, ...), (g,) in float64; ties by mean rank, NaN where one is constant."""
    ranks = [torch.from_numpy(stats.rankdata(t.flatten(1).cpu().numpy(), axis=1)) for t in (a, b)]
    x, y = (r - r.mean(1, keepdim=True) for r in ranks)
    return ((x * y).sum(1) / (x.square().sum(1) * y.square().sum(1)).sqrt()).to(a.device)
