"""Which cells of a map are its strongest, and how far two such sets coincide."""

import torch
from torch import Tensor

from seewhy.perturb import image_generator


def cells_of_top(share: float, cells: int) -> int:
    """How many of d cells are a share of them: round(share d), at least one."""
    return max(1, round(share * cells))


def top_cells(raw: Tensor, images: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """The k = `cells_of_top` largest of each map (N, *grid), signed: a mask (N, cells); and the tied share of them (N,).

    Ties are broken at random, by `seed` and the image's own bytes: the same for all maps of an image, other for another
    seed. Tied: of the k, those whose value others have that were left out.
    """
    flat = raw.flatten(1)
    k = cells_of_top(share, flat.shape[1])
    shuffled = torch.stack([torch.randperm(flat.shape[1], generator=image_generator(x, seed)) for x in images])
    shuffled = shuffled.to(flat.device)
    order = flat.gather(1, shuffled).argsort(dim=1, descending=True, stable=True)[:, :k]
    chosen = torch.zeros_like(flat, dtype=torch.bool).scatter_(1, shuffled.gather(1, order), True)
    level = flat == flat.masked_fill(~chosen, torch.inf).amin(1, keepdim=True)
    kept, all_of_level = (level & chosen).sum(1), level.sum(1)
    return chosen, torch.where(all_of_level > kept, kept / k, 0.0)


def jaccard(a: Tensor, b: Tensor) -> Tensor:
    """Cells in both of two masks (N, cells) as a share of those in either: (N,) in float64."""
    return (a & b).sum(1).double() / (a | b).sum(1)


def jaccard_by_chance(share: float, cells: int) -> float:
    """Of two sets of k of d cells that know nothing of one another, expected common over expected union: k / (2 d - k)."""
    k = cells_of_top(share, cells)
    return k / (2 * cells - k)
