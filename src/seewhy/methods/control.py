"""Maps that know nothing of the network: every score of a method stands beside theirs."""

from torch import Tensor

from seewhy.controls import center_maps, edge_maps, random_maps
from seewhy.maps import Maps
from seewhy.methods.steps import by_groups, clean_run
from seewhy.model import VisionModel
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
        return Maps(random_maps(x, seed).to(model.device), *clean_run(model, x, chosen, rows))

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
        return Maps(edge_maps(x.to(model.device)), *clean_run(model, x, chosen, rows))

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
        return Maps(center_maps(len(x), x.shape[2:]).to(model.device), *clean_run(model, x, chosen, rows))

    return by_groups(model, images, target, run)
