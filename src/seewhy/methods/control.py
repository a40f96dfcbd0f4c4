"""Maps that know nothing of the network: every score of a method stands beside theirs."""

import torch
from torch import Tensor
from torch.nn import functional

from seewhy.methods.maps import Maps, by_groups, clean_run
from seewhy.model import VisionModel
from seewhy.perturb import image_generator
from seewhy.registry import method
from seewhy.target import Target


@method(
    title="Random map",
    family="control",
    rows=lambda _: (1, 0),
    resolution="input",
    picture="positive",
    cost="1 forward row (the prediction; the map needs none)",
    paper="chance level",
    uses_target=False,
    needs_gradients=False,
    good_for="chance level of every check",
    not_for="explaining anything",
    randomization="changes with its seed alone: passing the test proves nothing (Binder 2023)",
)
def random_map(model: VisionModel, images: Tensor, target: Target, *, seed: int = 0) -> Maps:
    """Chance: independent uniform noise in [0, 1) for every pixel, new for every image and seed.

    The generator is seeded by `seed` and the image's own bytes: images are independent of each other, and an image's
    map does not depend on what else is in the batch.
    """

    def run(part: slice, chosen: Target, rows: Tensor) -> Maps:
        x = images[part]
        noise = [torch.rand(x.shape[2:], generator=image_generator(image, seed), dtype=torch.float32) for image in x]
        return Maps(torch.stack(noise).to(model.device), *clean_run(model, x, chosen, rows))

    return by_groups(model, images, target, run)


@method(
    title="Edge map",
    family="control",
    rows=lambda _: (1, 0),
    resolution="input",
    picture="positive",
    cost="1 forward row (the prediction; the map needs none)",
    paper="Adebayo et al. 2018, arXiv:1810.03292, section 5 (edge detector)",
    uses_target=False,
    needs_gradients=False,
    good_for="what a map that ignores the network scores (Adebayo 2018, section 5)",
    not_for="explaining anything",
    randomization="fails by construction: it never changes (Adebayo 2018)",
)
def edge_map(model: VisionModel, images: Tensor, target: Target) -> Maps:
    """What the eye takes for a good map: the edges of the picture, whatever the network does.

    M = sqrt(sum over axes of Sobel^2) of the channel mean, borders repeated, weights summing to 1: >= 0, per pixel.
    """

    def run(part: slice, chosen: Target, rows: Tensor) -> Maps:
        x = images[part]
        return Maps(_sobel(x.mean(1).to(model.device)), *clean_run(model, x, chosen, rows))

    return by_groups(model, images, target, run)


@method(
    title="Center map",
    family="control",
    rows=lambda _: (1, 0),
    resolution="input",
    picture="positive",
    cost="1 forward row (the prediction; the map needs none)",
    paper="center bias of photographs (Tatler 2007); image-free baseline of localization",
    uses_target=False,
    needs_gradients=False,
    good_for="what the photographer's habit alone scores in a localization check",
    not_for="explaining anything",
    randomization="fails by construction: it never changes",
)
def center_map(model: VisionModel, images: Tensor, target: Target) -> Maps:
    """The middle of the picture, whatever is in it: photographers put the object there.

    M(u) = exp(-1/2 sum over axes of ((u - c) / (L / 4))^2), c the center and L the length of each axis: in (0, 1], the
    same for every image.
    """

    def run(part: slice, chosen: Target, rows: Tensor) -> Maps:
        x = images[part]
        bump = torch.ones(x.shape[2:], dtype=torch.float32)
        for axis, length in enumerate(x.shape[2:]):
            offsets = (torch.arange(length, dtype=torch.float32) - (length - 1) / 2) / (length / 4)
            bump = bump * torch.exp(-0.5 * offsets**2).view(-1, *[1] * (x.ndim - 3 - axis))
        return Maps(bump.to(model.device).repeat(len(x), *[1] * bump.ndim), *clean_run(model, x, chosen, rows))

    return by_groups(model, images, target, run)


def _sobel(gray: Tensor) -> Tensor:
    """(N, *axes) -> (N, *axes); separable: [-1, 0, 1] / 2 along one axis, [1, 2, 1] / 4 along every other."""
    difference, smooth = torch.tensor([-0.5, 0.0, 0.5]), torch.tensor([0.25, 0.5, 0.25])
    total = torch.zeros_like(gray)
    for axis in range(1, gray.ndim):
        edges = gray
        for other in range(1, gray.ndim):
            edges = _along(edges, difference if other == axis else smooth, other)
        total += edges.square()
    return total.sqrt()


def _along(values: Tensor, kernel: Tensor, axis: int) -> Tensor:
    lines = values.movedim(axis, -1)
    padded = functional.pad(lines.reshape(-1, 1, lines.shape[-1]), (1, 1), mode="replicate")
    return functional.conv1d(padded, kernel.to(values).view(1, 1, 3)).reshape(lines.shape).movedim(-1, axis)
