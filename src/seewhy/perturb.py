"""The one place where an image gets damaged: baselines, fills and top-k orders, all stated in pixel space [0, 1]."""

import zlib
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from seewhy.errors import RefusalError, UsageError, known_name
from seewhy.model import VisionModel

BASELINES = {  # and why one would take it
    "black": "the absence of light, the choice of the Integrated Gradients paper for photographs; black things show nothing",
    "white": "the absence of ink, for drawings and scans on paper; white things show nothing",
    "mean": "the image's own mean color: no brightness is favored, the color itself shows nothing",
    "normalization_mean": "the color that the network's normalization maps to zero, its own input of nothing",
    "blur": "the image without detail: colors stay, shapes show",
    "noise": "uniform noise: no color is favored; another seed gives another map",
}
FILLS = (*BASELINES, "blur_11x11")  # the last: kernel 11 x 11, sigma 5, the start of insertion in the RISE paper's code
PIXEL_BASELINES = ("black", "white", "noise")  # stated in pixel space: they need the network's bounds
BLUR_SIGMA = 0.1  # of the shorter side: at 224 pixels 22, where no object keeps its shape


def baseline_images(
    images: Tensor, baseline: str | Tensor, *, neutral: Sequence[float] | None = None, seed: int = 0
) -> Tensor:
    """The picture that stands for "nothing there", of the images' shape (N, C, *axes), in [0, 1].

    black 0, white 1, mean: each image's own mean color, normalization_mean: the color `neutral` that the network's
    normalization maps to zero (0 where there is none), blur: Gaussian with sigma of 10 % of the shorter side, noise:
    uniform in [0, 1), from `seed` and the image's own bytes. Or a tensor in the images' own space, one for all or one
    per image. UsageError for an unknown name, a wrong shape or values that are not finite.
    """
    if isinstance(baseline, Tensor):
        return _user_baseline(images, baseline)
    if not isinstance(baseline, str):
        raise UsageError(f"a baseline is one of {', '.join(BASELINES)} or a tensor, not {type(baseline).__name__}.")
    known_name("baseline", baseline, BASELINES)
    if baseline == "black":
        return torch.zeros_like(images)
    if baseline == "white":
        return torch.ones_like(images)
    axes = tuple(range(2, images.ndim))
    if baseline == "mean":
        return images.mean(dim=axes, keepdim=True).expand_as(images)
    if baseline == "normalization_mean":
        color = torch.tensor(neutral if neutral is not None else (0.0,), dtype=images.dtype, device=images.device)
        return color.view(1, -1, *[1] * len(axes)).expand_as(images)
    if baseline == "blur":
        return gaussian_blur(images, BLUR_SIGMA * min(images.shape[2:]))
    noise = [torch.rand(image.shape, generator=image_generator(image, seed), dtype=torch.float32) for image in images]
    return torch.stack(noise).to(images)


def background(model: VisionModel, images: Tensor, baseline: str | Tensor, seed: int = 0) -> Tensor:
    """The picture that stands for "nothing there" under these images, on the model's device; see baseline_images.

    RefusalError for a color that is stated in pixel space on a network whose pixel bounds are unknown.
    """
    if model.bounds is None and isinstance(baseline, str) and baseline in PIXEL_BASELINES:
        raise RefusalError(
            f"a {baseline} baseline needs the network's pixel bounds, which are unknown for a bare module: wrap it with "
            "sw.wrap(module, mean=..., std=...), or pass baseline=a tensor in the network's own input space."
        )
    return baseline_images(images.to(model.device), baseline, neutral=model.mean, seed=seed)


def fill_images(model: VisionModel, images: Tensor, fill: str, seed: int = 0) -> Tensor:
    """What stands where a part of these images is hidden, (N, C, *axes): a named baseline, or `blur_11x11`.

    blur_11x11 is the RISE code's blur, kernel 11 and sigma 5 pixels at any size, borders mirrored (there: zeros beyond
    them). UsageError for an unknown name; RefusalError for a pixel color on a network whose bounds are unknown.
    """
    known_name("fill", fill, FILLS)
    if fill == "blur_11x11":
        return gaussian_blur(images.to(model.device), 5.0, radius=5)
    return background(model, images, fill, seed)


def ranks(values: Tensor, ties: Tensor) -> Tensor:
    """Place of each value of a row, 0 for the largest: (N, units) of (N, units); equal values in the order of `ties`."""
    shuffled = ties.argsort(1)
    order = shuffled.gather(1, values.gather(1, shuffled).argsort(dim=1, descending=True, stable=True))
    return order.argsort(1)


def baseline_reason(baseline: str | Tensor) -> str:
    """Why one would take this baseline, for the record."""
    if isinstance(baseline, Tensor):
        return "a picture given by the user, without a reason"
    return BASELINES.get(baseline, "")


class Diffusion:
    """Gaussian blur of some images (N, C, *axes) with any sigma, as heat flow with mirrored borders.

    In the cosine basis (DCT-II) of each axis, blurring with sigma multiplies coefficient k by exp(-(sigma w_k)^2 / 2),
    w_k = pi k / length: exact for every sigma, the identity at 0, the mean color at infinity.
    """

    def __init__(self, images: Tensor) -> None:
        self._bases = [_cosines(length, images) for length in images.shape[2:]]
        self._coefficients = self._along(images, [basis.T for basis in self._bases])
        self._frequencies = torch.zeros(images.shape[2:], dtype=images.dtype, device=images.device)
        for axis, length in enumerate(images.shape[2:]):
            w = torch.pi / length * torch.arange(length, dtype=images.dtype, device=images.device)
            self._frequencies = self._frequencies + w.square().view(-1, *[1] * (images.ndim - 3 - axis))

    def at(self, images: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Image images[r] blurred with sigma[r] pixels, and its derivative by sigma: (R, C, *axes) each."""
        s = sigma.view(-1, *[1] * (self._coefficients.ndim - 1))
        faded = self._coefficients[images] * torch.exp(-0.5 * s.square() * self._frequencies)
        blurred = self._along(torch.cat([faded, -s * self._frequencies * faded]), self._bases)
        return blurred[: len(images)], blurred[len(images) :]

    @staticmethod
    def _along(values: Tensor, matrices: Sequence[Tensor]) -> Tensor:
        for axis, matrix in enumerate(matrices, 2):
            values = (values.movedim(axis, -1) @ matrix.T).movedim(-1, axis)
        return values


def _cosines(length: int, like: Tensor) -> Tensor:
    """(length, length), column k the k-th cosine, orthonormal."""
    place = torch.arange(length, dtype=torch.float64) + 0.5
    basis = torch.cos(torch.pi / length * place[:, None] * torch.arange(length, dtype=torch.float64))
    orthonormal: Tensor = basis / torch.linalg.vector_norm(basis, dim=0)
    return orthonormal.to(like)


def image_generator(image: Tensor, seed: int) -> torch.Generator:
    """Random numbers of one image: seeded by `seed` and the image's own bytes, independent of what else is in the batch."""
    content = image.detach().cpu().contiguous().numpy().tobytes()
    return torch.Generator().manual_seed(zlib.crc32(content, seed))  # torch's CPU generator takes 32 bits


def _user_baseline(images: Tensor, baseline: Tensor) -> Tensor:
    given = baseline.detach().to(images)
    if given.ndim == images.ndim - 1:
        given = given.unsqueeze(0)
    if given.shape[1:] != images.shape[1:] or len(given) not in (1, len(images)):
        raise UsageError(f"the baseline has shape {tuple(baseline.shape)}, the images {tuple(images.shape)}.")
    if not torch.isfinite(given).all():
        raise UsageError("the baseline has values that are not finite.")
    return given.expand_as(images)


def gaussian_blur(images: Tensor, sigma: float, radius: int | None = None) -> Tensor:
    """Gaussian blur over every spatial axis of (N, C, *axes), borders mirrored (repeated on short axes).

    radius: of the kernel in pixels; None: three sigma.
    """
    radius = max(1, round(3 * sigma)) if radius is None else radius
    offsets = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (offsets / max(sigma, 1e-6)) ** 2)
    kernel = kernel / kernel.sum()
    for axis in range(2, images.ndim):
        lines = images.movedim(axis, -1)
        shape = lines.shape
        mode = "reflect" if shape[-1] > radius else "replicate"
        padded = functional.pad(lines.reshape(-1, 1, shape[-1]), (radius, radius), mode=mode)
        images = functional.conv1d(padded, kernel.view(1, 1, -1)).reshape(shape).movedim(-1, axis)
    return images
