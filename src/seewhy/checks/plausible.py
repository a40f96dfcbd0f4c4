"""Where an object can be expected: where others have it; and the images whose map peaks elsewhere, to be looked at."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from seewhy.checks.objects import Objects


def reached_by_others(annotated: Sequence[Objects], sources: Sequence[object], kinds: Sequence[object]) -> Tensor:
    """Per image the pixels (N, H, W) that an object of its class reaches in an image of another source, by any annotator."""
    marked = torch.stack([one.mask for one in annotated]).any(0)
    source, kind = (np.unique([str(v) for v in values], return_inverse=True)[1] for values in (sources, kinds))
    found = torch.zeros_like(marked)
    for one in np.unique(kind):
        of_kind = np.flatnonzero(kind == one)
        groups = [of_kind[source[of_kind] == s] for s in np.unique(source[of_kind])]
        reached = [marked[group].any(0) for group in groups]  # by each source
        count = torch.stack(reached).sum(0)
        for group, own in zip(groups, reached, strict=True):
            found[group] = count > own.int()
    return found


def peaks_inside(values: Tensor, region: Tensor) -> Tensor:
    """Share of each map's peaks (N, H, W) that lie in its region: (N,) float64.

    0 where a map has no positive value, NaN where the region is empty.
    """
    peak = _peaks(values)
    share = (peak & region).sum((1, 2)).double() / peak.sum((1, 2)).clamp_min(1)
    known = values.isfinite().all(2).all(1) & region.any(2).any(1)
    return torch.where(known, share, torch.nan)


def outside_queue(values: Tensor, inside: Tensor, region: Tensor) -> list[dict[str, Any]]:
    """The images none of whose peaks lies in the region, farthest first; then those whose map marks nothing."""
    found = []
    for i in (inside == 0).nonzero()[:, 0].tolist():
        peaks = _peaks(values[i : i + 1])[0].numpy()
        if not peaks.any():
            found.append((-1.0, i, "the map has no positive value: it marks nothing"))
            continue
        away = np.where(peaks, ndimage.distance_transform_edt(~region[i].numpy()), np.inf)
        y, x = np.unravel_index(int(away.argmin()), away.shape)
        reason = (
            f"the map peaks at x = {x}, y = {y} of the input, {away[y, x]:.0f} pixels from where this was ever marked in an "
            "image of another source"
        )
        found.append((float(away[y, x]), i, reason))
    return [
        {"image": i, "score": max(away, 0.0), "reason": reason}
        for away, i, reason in sorted(found, key=lambda one: (-one[0], one[1]))
    ]


def _peaks(values: Tensor) -> Tensor:
    """The pixels where each map is largest; none where nothing is positive."""
    highest = values.amax((1, 2), keepdim=True)
    return (values == highest) & (highest > 0)
