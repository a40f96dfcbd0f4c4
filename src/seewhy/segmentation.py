"""Pictures cut into parts: superpixels by scikit-image, a grid, or the user's own."""

import importlib
from collections.abc import Callable

import torch
from torch import Tensor

from seewhy.errors import MissingExtraError, UsageError, known_name, whole_number

SEGMENTATIONS = ("slic", "quickshift", "grid")
Segmenter = Callable[[Tensor], Tensor]  # (C, *axes) -> (*axes) of any whole numbers


class Parts:
    """The superpixels of some images: checked at once, found group by group."""

    def __init__(self, images: Tensor, segments: Tensor | None, segmentation: str, superpixels: int) -> None:
        whole_number("superpixels", superpixels, at_least=1)
        known_name("segmentation", segmentation, SEGMENTATIONS)
        self._given = None if segments is None else _checked(segments, images)
        self._segmenter = _segmenter(segmentation, superpixels, images.ndim - 2) if segments is None else None

    def of(self, images: Tensor, part: slice) -> tuple[Tensor, list[int]]:
        """Superpixel 0 .. n - 1 of each pixel (g, *axes), on the CPU, and n of each image."""
        if self._segmenter is not None:
            found = [self._segmenter(image) for image in images[part].detach().cpu()]
        else:
            assert self._given is not None, "superpixels are given or found"
            found = list(self._given[part])
        numbered = [torch.unique(labels, return_inverse=True) for labels in found]
        return torch.stack([labels for _, labels in numbered]), [len(names) for names, _ in numbered]


def _checked(segments: Tensor, images: Tensor) -> Tensor:
    axes = images.shape[2:]
    if not isinstance(segments, Tensor) or segments.dtype.is_floating_point or segments.dtype.is_complex:
        kind = segments.dtype if isinstance(segments, Tensor) else type(segments).__name__
        raise UsageError(f"segments is a tensor of whole numbers, a superpixel for each pixel; got {kind}.")
    if segments.shape not in (axes, (len(images), *axes)):
        raise UsageError(f"segments has shape {tuple(segments.shape)}, the images {tuple(images.shape)}.")
    return segments.detach().cpu().long().expand(len(images), *axes)


def _segmenter(name: str, superpixels: int, axes: int) -> Segmenter:
    """Image -> labels. UsageError for a segmentation that this number of axes has not; MissingExtraError."""
    if name == "grid":
        return lambda image: _grid(image.shape[1:], superpixels)
    if axes not in ((2, 3) if name == "slic" else (2,)):
        raise UsageError(f"segmentation={name!r} cannot cut images of {axes} axes: use 'grid', or give segments.")
    try:
        skimage = importlib.import_module("skimage.segmentation")
    except ImportError as error:
        raise MissingExtraError("scikit-image", "superpixels", f"segmentation={name!r}") from error

    def run(image: Tensor) -> Tensor:
        picture = _unit_range(image).movedim(0, -1).double().numpy()
        if name == "slic":
            found = skimage.slic(picture, n_segments=superpixels, slic_zero=True, start_label=0, channel_axis=-1)
        else:  # converts to Lab, which takes three channels
            colors = picture if picture.shape[-1] == 3 else picture.mean(-1, keepdims=True).repeat(3, -1)
            found = skimage.quickshift(colors, kernel_size=4, max_dist=200, ratio=0.2)
        return torch.from_numpy(found).long()

    return run


def _grid(axes: torch.Size, superpixels: int) -> Tensor:
    """Labels of about `superpixels` equal boxes with sides as equal as they go."""
    edge = (axes.numel() / superpixels) ** (1 / len(axes))
    labels = torch.zeros(axes, dtype=torch.long)
    for axis, side in enumerate(axes):
        boxes = min(max(round(side / edge), 1), side)
        along = torch.arange(side) * boxes // side
        labels = labels * boxes + along.view(-1, *[1] * (len(axes) - 1 - axis))
    return labels


def _unit_range(image: Tensor) -> Tensor:
    """The image as it is where it lies in [0, 1], else stretched to it (a bare network's own input)."""
    low, high = image.amin(), image.amax()
    if low >= 0 and high <= 1:
        return image
    return (image - low) / (high - low).clamp_min(torch.finfo(image.dtype).tiny)
