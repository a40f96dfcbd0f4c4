"""For test suites: assertions that a model looks where it should, and that an audit of it passes."""

import math
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import seewhy as sw

LISTED = 10  # images that a message names


def assert_looks_inside(
    model: Any,
    images: Any,
    boxes: Sequence[Any],
    method: str = "grad_cam",
    *,
    share: float,
    target: Any = None,
    layer: Any = None,
    clusters: Sequence[object] | None = None,
    params: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> None:
    """AssertionError unless the maps' mass lies inside the boxes: the mean share's 95 % interval reaches `share`.

    The share of an image is the sum of the map's positive part inside / in all, in [0, 1] (Wang et al. 2020,
    arXiv:1910.01279); a map without a positive value has share 0. share: your own level. model, images, method, target,
    layer, params, seed: as for `sw.explain`. boxes: per image a list of x0, y0, x1, y1 in pixels of the model's input, ends
    exclusive; [] leaves the image out. clusters: what images share (patient, session): whole ones are resampled. An image
    whose map cannot be scored fails the assertion, and so does a single image, which has no interval. The message says the
    interval, n, the share that the boxes would have by chance, and the images below the level.
    UsageError for what cannot be meant; RefusalError where the method has no honest map of this model.
    """
    __tracebackhide__ = True  # pytest shows the caller's line
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        raise sw.UsageError(f"share is the level that the mean must reach, above 0 and at most 1; got {share!r}.")
    settings = {"localization": {} if clusters is None else {"clusters": clusters}}
    given = {"target": target, "layer": layer, "boxes": boxes, "settings": settings, "seed": seed, **(params or {})}
    card = sw.check(model, images, method, only="localization", **given)
    row, names = card["localization"], card.about["images"]
    if not row.scores:  # refused: the sentence says why
        raise AssertionError(row.sentence)
    found = row["energy_inside"]
    lost = [f"{names[i]} ({why})" for i, why in row.excluded.items() if why != "no object is marked"]
    if found.interval.low >= share and not lost:  # NaN, without an interval, is not
        return
    low = sorted((v, name) for v, name in zip(found.per_image, names, strict=True) if v < share)
    lines = [
        f"The maps of {method} do not lie inside the boxes: the mean share of their mass inside is {found.interval}, by "
        f"chance {found.controls['chance'].value:.3g}; asked for: an interval from {share:g} on.",
        *([f"No map to score: {_listed(lost)}."] if lost else []),
        *([f"Below {share:g}: {_listed([f'{name} ({value:.2g})' for value, name in low])}."] if low else []),
        *(
            ["There is no interval of fewer than 2 images or clusters: give more."]
            if math.isnan(found.interval.low)
            else []
        ),
    ]
    raise AssertionError("\n".join(lines))


def assert_no_shortcut(
    model: Any, dataset: Any, policy: str | Path | None = None, *, out: str | Path | None = None, **settings: Any
) -> None:
    """AssertionError, with the reasons, unless the audit of a model on labeled images passes the policy's gate.

    model, dataset, policy and every setting: as for `sw.audit`. out: the run folder; None makes a temporary one, which is
    kept where the assertion fails, and its page named in the message. An inconclusive or interrupted audit fails too.
    """
    __tracebackhide__ = True
    folder = Path(tempfile.mkdtemp(prefix="seewhy-audit-")) if out is None else Path(out)
    done = sw.audit(model, dataset, out=folder, policy=policy, **settings)
    if done.verdict != "pass":
        raise AssertionError("\n".join([*done.to_dict()["reasons"], f"The report: {done.page}"]))
    if out is None:
        shutil.rmtree(folder)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
