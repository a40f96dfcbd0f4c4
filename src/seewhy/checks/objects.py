"""What somebody drew around the objects of some pictures: boxes or masks, read and compared."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from seewhy.errors import UsageError

TOUCHING = np.ones((3, 3), dtype=bool)  # pixels that meet at a corner belong to one object


@dataclass(frozen=True)
class Objects:
    """What one annotator marked in N images."""

    mask: Tensor  # (N, H, W) bool: every object of the image together
    boxes: tuple[Tensor, ...]  # per image (K, 4) float64: x0, y0, x1, y1 in pixels, ends exclusive
    looked: Tensor | None = None  # (N,) bool: the images that they looked at; None: at all
    annotator: str = ""

    @property
    def there(self) -> Tensor:
        """(N,): whether anything was marked."""
        return self.mask.flatten(1).any(1)


def read_annotations(boxes: Any, masks: Any, annotators: Any, shape: Sequence[int]) -> list[Objects]:
    """Boxes, or masks, or a list of either, one per annotator, of images of shape (N, C, H, W); UsageError for others.

    An annotator may also be given as `Objects`, already read.
    """
    if sum(given is not None for given in (boxes, masks, annotators)) != 1:
        given = [n for n, v in (("boxes", boxes), ("masks", masks), ("annotators", annotators)) if v is not None]
        raise UsageError(
            f"where the objects are comes as one of boxes=, masks=, annotators=; got {' and '.join(given) or 'none'}. "
            "boxes=[[[x0, y0, x1, y1], ...], ...] has a list per image, in pixels of the input."
        )
    if len(shape) != 4:
        raise UsageError(f"boxes and masks are for pictures (N, C, H, W); got images of shape {tuple(shape)}.")
    if annotators is None:
        return [_read_boxes(boxes, shape) if masks is None else _read_masks(masks, shape)]
    if not isinstance(annotators, list | tuple) or not annotators:
        raise UsageError("annotators is a list with the boxes or the masks of each annotator.")
    return [_read_one(one, shape) for one in annotators]


def overlap_of_boxes(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of boxes (..., 4) with boxes (..., 4), exact, in [0, 1]."""
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    shared = (high - low).clamp_min(0).prod(-1)
    return shared / ((a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - shared)


def overlap_of_masks(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of masks (N, H, W): (N,) float64, NaN where both are empty."""
    return (a & b).flatten(1).sum(1).double() / (a | b).flatten(1).sum(1)


def median_boxes(boxes: Sequence[Tensor], sources: Sequence[object], classes: Sequence[object]) -> Tensor:
    """For every image the median box (N, 4) of the images of other sources with its class, NaN where there is none.

    boxes: per image (K, 4). The medians are of x0, y0, width and height: medians of the four corners or of center and size
    are other boxes (mean IoU .164, .184 and .141 on the 984 of NIH ChestX-ray14). No pixel is looked at: what this scores,
    the habit of where objects lie scores.
    """
    corners = torch.cat(list(boxes))
    every = torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1)
    of = np.repeat(np.arange(len(boxes)), [len(one) for one in boxes])
    source, kind = (np.unique([str(v) for v in values], return_inverse=True)[1] for values in (sources, classes))
    found = torch.full((len(boxes), 4), torch.nan, dtype=torch.float64)
    for i in range(len(boxes)):
        others = torch.from_numpy((source[of] != source[i]) & (kind[of] == kind[i]))
        if bool(others.any()):
            found[i] = every[others].quantile(0.5, dim=0)
    return torch.cat([found[:, :2], found[:, :2] + found[:, 2:]], 1)


def box_maps(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """One box (N, 4) per image as maps (N, H, W) float64: 1 inside, its middle higher by a millionth, 0 outside."""
    y, x = (torch.arange(length, dtype=torch.float64) + 0.5 for length in size)
    x0, y0, x1, y1 = (boxes[:, k].view(-1, 1, 1) for k in range(4))
    across = ((x - (x0 + x1) / 2) / (x1 - x0) * 2).expand(-1, size[0], -1)
    along = ((y[:, None] - (y0 + y1) / 2) / (y1 - y0) * 2).expand(-1, -1, size[1])
    away = torch.maximum(across.abs(), along.abs())
    return torch.where(away.isnan(), away, (1 + 1e-6 * (1 - away)) * (away <= 1))


def parts_of(mask: NDArray[np.bool_], largest: bool = False) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The connected parts of planes (Q, H, W): the plane and the bounding box (x0, y0, x1, y1) of each.

    largest: only the largest part of every plane, and all that are as large.
    """
    connected = np.zeros((3, 3, 3), dtype=bool)
    connected[1] = TOUCHING  # within a plane only
    labels, count = ndimage.label(mask, connected)
    if largest:
        labels = _largest(labels, count)
    found = ndimage.find_objects(labels)
    plane = np.array([p.start for p, _, _ in found], dtype=np.int64)
    corners = [(x.start, y.start, x.stop, y.stop) for _, y, x in found]
    return plane, np.array(corners, dtype=np.float64).reshape(-1, 4)


def _largest(labels: NDArray[np.int32], count: int) -> NDArray[np.int64]:
    """Labels (Q, H, W) of the largest parts of each plane alone, as 1, 2, ...; noise has thousands of others."""
    plane = np.zeros(count + 1, dtype=np.int64)
    plane[labels.reshape(len(labels), -1)] = np.arange(len(labels))[:, None]
    pixels = np.bincount(labels.ravel(), minlength=count + 1)
    pixels[0] = 0
    most = np.zeros(len(labels), dtype=np.int64)
    np.maximum.at(most, plane, pixels)
    wins = (pixels == most[plane]) & (pixels > 0)
    return np.where(wins, wins.cumsum(), 0)[labels]


def _read_one(given: Any, shape: Sequence[int]) -> Objects:
    if isinstance(given, Objects):
        expected = (shape[0], *shape[2:])
        if tuple(given.mask.shape) != expected:
            raise UsageError(f"objects of an annotator in {tuple(given.mask.shape)} pixels; the images are {expected}.")
        return given
    return _read_masks(given, shape) if _is_mask(given) else _read_boxes(given, shape)


def _is_mask(given: Any) -> bool:
    return str(getattr(given, "dtype", "")).endswith("bool")


def _read_masks(given: Any, shape: Sequence[int]) -> Objects:
    expected = (shape[0], *shape[2:])
    if not _is_mask(given) or tuple(given.shape) != expected:
        got = f"{tuple(getattr(given, 'shape', ()))} of {getattr(given, 'dtype', type(given).__name__)}"
        raise UsageError(f"masks are bool of shape {expected}, one per image; got {got}. masks > 0 makes numbers bool.")
    mask = torch.as_tensor(given).cpu()
    parts = [parts_of(one[None].numpy())[1] for one in mask]
    return Objects(mask, tuple(torch.from_numpy(one) for one in parts))


def _read_boxes(given: Any, shape: Sequence[int]) -> Objects:
    n, (height, width) = shape[0], shape[2:]
    if not hasattr(given, "__len__") or len(given) != n:
        got = f"{len(given)}" if hasattr(given, "__len__") else type(given).__name__
        raise UsageError(f"boxes has a list of boxes per image; got {got} for {n} images. [] where there is none.")
    boxes = tuple(_boxes_of(i, one, height, width) for i, one in enumerate(given))
    mask = torch.zeros(n, height, width, dtype=torch.bool)
    y, x = (torch.arange(length) + 0.5 for length in (height, width))
    for i, several in enumerate(boxes):
        x0, y0, x1, y1 = several[:, :, None].unbind(1)
        covered = ((y >= y0) & (y < y1))[:, :, None] & ((x >= x0) & (x < x1))[:, None, :]
        if not bool(covered.flatten(1).any(1).all()):
            raise UsageError(f"a box of image {i} is so small that it holds no pixel's center: {several.tolist()}.")
        mask[i] = covered.any(0)
    return Objects(mask, boxes)


def _boxes_of(i: int, given: Any, height: int, width: int) -> Tensor:
    """The boxes of image i as (K, 4) float64."""
    try:
        boxes = torch.as_tensor(np.asarray(given, dtype=np.float64)).cpu()
    except (TypeError, ValueError) as error:
        raise UsageError(f"the boxes of image {i} are no numbers x0, y0, x1, y1: {given!r}.") from error
    boxes = boxes.reshape(0, 4) if boxes.numel() == 0 else boxes.view(1, -1) if boxes.ndim == 1 else boxes
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise UsageError(f"the boxes of image {i} have shape {tuple(boxes.shape)}; expected (K, 4): x0, y0, x1, y1.")
    limits = torch.tensor([width, height], dtype=torch.float64)
    good = (boxes[:, :2] >= 0) & (boxes[:, 2:] <= limits) & (boxes[:, 2:] > boxes[:, :2])
    if not bool(good.all()):
        bad = boxes[~good.all(1)][0].tolist()
        raise UsageError(
            f"box {bad} of image {i} is none: expected x0, y0, x1, y1 in pixels of the input, 0 <= x0 < x1 <= {width}, "
            f"0 <= y0 < y1 <= {height}, ends exclusive. Corner and size (x, y, w, h) become x, y, x + w, y + h."
        )
    return boxes
