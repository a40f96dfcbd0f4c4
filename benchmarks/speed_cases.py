"""The contests of speed.py: what is timed against what, both asked the same question of the same images."""

import io
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import dataclass
from functools import cache, partial

import torch
from captum.attr import NoiseTunnel, Saliency
from pytorch_grad_cam import ScoreCAM as PytorchScoreCam
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor
from torch.nn.functional import interpolate
from torchcam.methods import ScoreCAM as TorchScoreCam

import seewhy as sw
from grad_cam import GOAL, models
from pairs import fastest
from seewhy.data.geometry import resize
from seewhy.demo.photos import PHOTOS, read_photo
from seewhy.explanation.inputs import read_inputs
from seewhy.methods.perturbation import rise_draws
from seewhy.normalization import normalized
from seewhy.target import PREDICTED

BATCHES = (4, 8, 16)  # that a plain loop and captum may choose from
CELLS, KEEP, NOISE = 7, 0.5, 0.15  # RISE's and SmoothGrad's defaults
CAMS = ("grad_cam", "grad_cam_pp", "layer_cam", "hires_cam")
COSTS = (("guided_backprop", "gradient"), ("layer_cam", "grad_cam"), ("grad_cam_pp", "grad_cam"))


@dataclass(frozen=True)
class Sizes:
    """How much of a goal's work one call does: layer of the Score-CAM, masks, samples, and the points of the curves."""

    layers: dict[str, str | None]
    masks: dict[str, int]
    samples: int
    images: tuple[int, ...]
    steps: tuple[int, ...]
    grown_masks: tuple[int, ...]


# Score-CAM's layers have 32 (tiny), 96 and 64 channels, whole batches for all; None is the default layer's 1280 and 2048.
SIZES = {
    "tiny": Sizes({"lite0": "bn1", "resnet50": "maxpool"}, {"lite0": 8, "resnet50": 8}, 4, (1, 2), (4, 8), (8, 16)),
    "short": Sizes(
        {"lite0": "blocks.1.0.bn1", "resnet50": "maxpool"}, {"lite0": 96, "resnet50": 48}, 50, (1, 2, 4, 8, 16),
        (20, 40, 80, 160), (25, 50, 100, 200),
    ),
    "full": Sizes(
        {"lite0": None, "resnet50": None}, {"lite0": 4000, "resnet50": 4000}, 50, (1, 2, 4, 8, 16),
        (20, 40, 80, 160), (500, 1000, 2000, 4000),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Contest:
    """Two calls that are warm and were found to agree, in words."""

    ours: Callable[[], Tensor]
    theirs: Callable[[], Tensor]
    agreement: str
    note: str = ""


@dataclass(frozen=True)
class Case:
    """One row of the table. The ratio is theirs / ours, to be >= goal, for a speedup; else ours / theirs, to be <=."""

    what: str
    network: str
    images: int
    goal: float
    speedup: bool
    contest: Callable[[], Contest]

    @property
    def name(self):
        """Its key in the results, and what --only looks at."""
        return f"{self.what}, {self.network}, {self.images}"


@dataclass(frozen=True)
class Curve:
    """One line of the table of growth: `call(size)` for several sizes."""

    what: str
    sizes: tuple[int, ...]
    call: Callable[[int], object]

    @property
    def name(self):
        """Its key in the results, and what --only looks at."""
        return f"growth: {self.what}"


@cache
def networks():
    """Name -> wrapped model."""
    return dict(models())


@cache
def photos(n):
    """The first n of the demo's 16 photos, (n, 3, 224, 224) in [0, 1]."""
    return read_inputs(networks()["lite0"], [read_photo(name) for name in list(PHOTOS)[:n]])[0]


def asked(network, n):
    """The model, n photos, the same as the network's own input, and the predicted classes, which peers are told."""
    model, x = networks()[network], photos(n)
    return model, x, normalized(x, model.mean, model.std), model.predict(x).argmax(1).tolist()


def same_maps(ours, theirs):
    """Pearson correlation of maps (N, ...) that may differ in grid, scale and offset; the lowest of the images."""
    resized = ours if ours.shape == theirs.shape else resize(ours, tuple(theirs.shape[1:]))
    both = (maps.detach().flatten(1).double() for maps in (resized, theirs))
    found = [torch.corrcoef(torch.stack(pair))[0, 1].item() for pair in zip(*both, strict=True)]
    return f"maps r = {min(found):.4f}"


def same_scores(ours, theirs):
    """Largest relative difference of the explained scores (N,): both saw the same network, images and classes."""
    return f"scores within {((ours - theirs).abs() / theirs.abs()).max().item():.0e}"


def checked(ours, theirs, compare, note=""):
    """The Contest of two calls, each of which is run once."""
    return Contest(ours, theirs, compare(ours(), theirs()), note)


def scores_of(model, x, method):
    """The explained scores of one call of a method."""
    return sw.explain(model, x, method).scores


def grad_cam(network, n):
    """Grad-CAM against a plain inference forward of the same batch."""
    model, x, z, _ = asked(network, n)

    def forward():
        with torch.inference_mode():
            return model.module(z).amax(1)

    return checked(partial(scores_of, model, x, "grad_cam"), forward, same_scores)


def beside(network, n, method, other):
    """One of our methods against another one of ours."""
    model, x, _, _ = asked(network, n)
    return checked(partial(scores_of, model, x, method), partial(scores_of, model, x, other), same_scores)


def score_cam(network, layer, tool, our_batch):
    """Score-CAM under the weights of algorithm 1, which both peers use; at a peer's own batch size or at ours."""
    model, x, z, (k,) = asked(network, 1)
    chosen = model.find_layer(layer, tuple(x.shape[1:]), PREDICTED)
    module, place = model.module, chosen.site.module
    batch = model.rows_per_forward(chosen.channels, x.shape[1:])

    def explained():
        return sw.explain(model, x, "score_cam", layer=chosen.name, weights="channel_softmax")

    def ours():
        return explained().raw.clamp_min(0)

    def torchcam():
        with TorchScoreCam(module, place, **({"batch_size": batch} if our_batch else {})) as extractor:
            with torch.no_grad():
                scores = module(z)
            return extractor([k], scores)[0]

    def pytorch_grad_cam():
        with PytorchScoreCam(model=module, target_layers=[place]) as cam, redirect_stderr(io.StringIO()):
            if our_batch:
                cam.batch_size = batch
            return torch.from_numpy(cam(input_tensor=z, targets=[ClassifierOutputTarget(k)]))

    theirs, first = {"torchcam": torchcam, "grad-cam": pytorch_grad_cam}[tool], explained()
    live = int(first.evidence["live_channels"][0])
    note = f"{live} of the {chosen.channels} channels of `{chosen.name}` live, our batch {batch}"
    return Contest(ours, theirs, same_maps(first.raw.clamp_min(0), theirs()), note)


def rise(network, masks):
    """RISE against a plain batched loop in the network's own space, under the same masks, at its best batch size."""
    model, x, z, (k,) = asked(network, 1)
    side = x.shape[2]
    cell = -(-side // CELLS)

    def ours():
        return sw.explain(model, x, "rise", samples=masks).raw

    def loop(batch, count=masks):
        with torch.inference_mode():
            model.module(z)  # which class
            bits, shifts = rise_draws(x[0], [cell, cell], count, CELLS, KEEP, 0)
            total = torch.zeros(side, side)
            for start in range(0, count, batch):
                grown = interpolate(bits[start : start + batch, None].float(), size=(CELLS + 1) * cell, mode="bilinear")
                corners = zip(grown, shifts[start : start + batch].tolist(), strict=True)
                shown = torch.stack([mask[:, i : i + side, j : j + side] for mask, (i, j) in corners])
                p = model.module(z * shown).softmax(1)[:, k]
                total += torch.tensordot(p, shown[:, 0], 1)
            return total[None] / (count * KEEP)

    best = fastest(partial(loop, count=min(masks, 2 * max(BATCHES))), BATCHES)
    return checked(ours, partial(loop, best), same_maps, f"{masks} masks, their best batch {best}")


def smooth_grad(network, samples):
    """SmoothGrad against captum's at its best batch size, under the same noise: its global generator gets our seed."""
    model, x, z, (k,) = asked(network, 1)
    std = torch.tensor(model.std).view(1, -1, 1, 1)
    spread = NOISE * float(x.max() - x.min()) / float(std.mean())
    tunnel = NoiseTunnel(Saliency(model.module))

    def ours():
        return sw.explain(model, x, "smooth_grad", samples=samples).raw

    def captum(batch):
        torch.manual_seed(0)
        found = tunnel.attribute(z, nt_samples=samples, nt_samples_batch_size=batch, stdevs=spread, target=k, abs=False)
        return (found / std).sum(1)

    best = fastest(captum, tuple(batch for batch in (*BATCHES, samples) if batch <= samples))
    return checked(ours, partial(captum, best), same_maps, f"{samples} samples, their best batch {best}")


def cases(sizes):
    """Every row of the table."""
    for network in networks():
        for n, goal in GOAL.items():
            yield Case("Grad-CAM / plain forward", network, n, goal, False, partial(grad_cam, network, n))
    for network, goal in {"lite0": 4, "resnet50": 1.1}.items():
        for tool in ("torchcam", "grad-cam"):
            for ours in (False, True):
                what = f"{tool}'s Score-CAM{' at our batch size' if ours else ''} / ours"
                contest = partial(score_cam, network, sizes.layers[network], tool, ours)
                yield Case(what, network, 1, goal, True, contest)
    for network, masks in sizes.masks.items():
        yield Case("plain loop of RISE / ours", network, 1, 1.3, True, partial(rise, network, masks))
    for network, goal in {"lite0": 1.3, "resnet50": 1.1}.items():
        contest = partial(smooth_grad, network, sizes.samples)
        yield Case("captum's SmoothGrad / ours", network, 1, goal, True, contest)
    for network, batches in {"lite0": (1, 8), "resnet50": (1,)}.items():
        for n in batches:
            for method, other in COSTS:
                contest = partial(beside, network, n, method, other)
                yield Case(f"`{method}` / `{other}`", network, n, 1.1, False, contest)


def curves(sizes):
    """Every line of the table of growth, on lite0."""
    model = networks()["lite0"]

    def images(method, n):
        sw.explain(model, photos(n), method)

    def one_after_another(count):
        for method in CAMS[:count]:
            sw.explain(model, photos(1), method)

    def integrated(steps):
        sw.explain(model, photos(1), "integrated_gradients", rule="midpoint", steps=steps)

    def masked(samples):
        sw.explain(model, photos(1), "rise", samples=samples)

    for method in ("grad_cam", "gradient"):
        yield Curve(f"`{method}`, images", sizes.images, partial(images, method))
    yield Curve(f"methods: {', '.join(CAMS)}, one call each", (1, 2, 3, 4), one_after_another)
    yield Curve("`integrated_gradients`, steps of the midpoint rule", sizes.steps, integrated)
    yield Curve("`rise`, masks", sizes.grown_masks, masked)
