"""Maps of two networks that see the same pictures, objects on scenes: one was taught the object, one the scene.

As in BAM (Yang and Kim 2019, arXiv:1907.09701): model contrast, input dependence, input independence, with digits on photos
of brick and gravel. What the networks use is tested first; the edge map, which knows no network, stands beside every method.
"""

import functools

import pytest
import torch
from skimage import data
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

import seewhy as sw
from seewhy.intervals import interval

SIDE, OBJECT, STROKE = 32, 16, 0.4  # pixels of a picture and of an object; what of a digit is drawn
SEEDS = range(3)
METHODS = {"gradient": {}, "integrated_gradients": {"rule": "midpoint", "steps": 8}, "grad_cam": {}}
N = 120


def on_scenes(n, seed, training):
    """Scenes (n, 1, 32, 32), the same with an object, both labels (n,), and where the objects are; no photo in both."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(below):
        return torch.randint(0, below, (n,), generator=generator)

    textures = [torch.tensor(photo())[None, None] / 255 for photo in (data.brick, data.gravel)]
    textures = [functional.interpolate(texture, size=(256, 256), mode="area")[0, 0] for texture in textures]
    digits = load_digits()
    half = slice(0, 100) if training else slice(100, None)
    written = [torch.tensor(digits.images[digits.target == digit][half] / 16).float() for digit in (0, 1)]

    scene, thing = drawn(2), drawn(2)
    tops, lefts = drawn(128 - SIDE) + (0 if training else 128), drawn(256 - SIDE)
    bare = torch.stack(
        [textures[k][top : top + SIDE, left : left + SIDE] for k, top, left in zip(scene, tops, lefts, strict=True)]
    )
    shapes = torch.stack([written[k][i % len(written[k])] for k, i in zip(thing, drawn(10_000), strict=True)])
    shapes = functional.interpolate(shapes[:, None], size=(OBJECT, OBJECT), mode="bilinear")[:, 0]
    rows, columns = ((torch.arange(SIDE) - drawn(SIDE - OBJECT + 1)[:, None]) for _ in range(2))
    inside = ((rows >= 0) & (rows < OBJECT))[:, :, None] & ((columns >= 0) & (columns < OBJECT))[:, None]
    shown = bare.clone()
    shown[inside] = torch.where(shapes.flatten() > STROKE, shapes.flatten(), bare[inside])
    return bare[:, None], shown[:, None], scene, thing, inside


def trained(x, labels, seed, epochs):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Conv2d(1, 16, 5, 2, 2),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, 1, 1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(32, 2),
        )
        optimizer = torch.optim.Adam(net.parameters(), 3e-3)
        for _ in range(epochs):
            for rows in torch.randperm(len(x)).split(64):
                optimizer.zero_grad()
                functional.cross_entropy(net(x[rows]), labels[rows]).backward()
                optimizer.step()
    return sw.wrap(net.eval(), mean=(0.0,), std=(1.0,), size=(SIDE, SIDE), batch_size=128)


@functools.cache
def networks(seed):
    """Taught the object, taught the scene; on the same pictures."""
    _, shown, scene, thing, _ = on_scenes(2000, seed, training=True)
    return trained(shown, thing, seed, 14), trained(shown, scene, seed, 8)


@functools.cache
def shown_to(seed):
    return on_scenes(N, 100 + seed, training=False)


def accuracy(model, x, labels):
    return (model.predict(x).argmax(1) == labels).double()


def share(model, x, method, inside):
    """Share of the map where the object is or would be: of its positive part; of a gradient of |map|."""
    maps = sw.explain(model, x, method, **METHODS.get(method, {})).maps.double()
    mass = maps.abs() if method == "gradient" else maps.clamp_min(0)
    return (mass * inside).sum((1, 2)) / mass.sum((1, 2))


def without_effect(model, bare, inside, seed):
    """The scenes with a patch in the place of the object that changes much of the pixels and nothing of the logits."""
    patch = (0.3 * torch.randn(bare.shape, generator=torch.Generator().manual_seed(seed))).requires_grad_()
    before, optimizer = model.predict(bare), torch.optim.Adam([patch], 0.02)
    for _ in range(60):
        optimizer.zero_grad()
        x = (bare + patch * inside[:, None]).clamp(0, 1)
        loss = (model.module(x) - before).square().sum(1).mean() - (x - bare).abs().sum() / len(x) / 1280
        loss.backward()
        optimizer.step()
    return x.detach()


@pytest.mark.parametrize("seed", SEEDS)
def test_each_network_uses_what_it_was_taught(seed):
    of_objects, of_scenes = networks(seed)
    bare, shown, scene, thing, _ = shown_to(seed)
    assert accuracy(of_objects, shown, thing).mean() > 0.9
    assert accuracy(of_scenes, shown, scene).mean() > 0.95
    assert accuracy(of_scenes, bare, scene).mean() > 0.95
    chance = interval(accuracy(of_scenes, shown, thing))
    assert chance.low < 0.5 < chance.high


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("method", METHODS)
def test_more_of_the_map_lies_on_the_object_where_the_network_was_taught_the_object(method, seed):
    of_objects, of_scenes = networks(seed)
    _, shown, _, _, inside = shown_to(seed)
    contrast = share(of_objects, shown, method, inside) - share(of_scenes, shown, method, inside)
    seen = ~contrast.isnan()  # a Grad-CAM may be all below 0
    assert seen.double().mean() > 0.5
    assert interval(contrast[seen]).low > 0


def test_a_map_that_sees_no_network_has_no_contrast():
    of_objects, of_scenes = networks(0)
    _, shown, _, _, inside = shown_to(0)
    assert torch.equal(share(of_objects, shown, "edge_map", inside), share(of_scenes, shown, "edge_map", inside))


@pytest.mark.parametrize("seed", SEEDS)
def test_an_object_that_hides_the_scene_lowers_the_map_of_the_scene_there_and_raises_one_that_multiplies_by_pixels(
    seed,
):
    _, of_scenes = networks(seed)
    bare, shown, _, _, inside = shown_to(seed)

    def change(method):
        return interval(share(of_scenes, shown, method, inside) - share(of_scenes, bare, method, inside))

    assert change("grad_cam").high < 0
    assert change("integrated_gradients").low > 0  # (x - x') is large where the strokes are, whatever they mean
    assert change("edge_map").low > 0


@pytest.mark.parametrize("seed", SEEDS)
def test_a_patch_that_changes_pixels_but_no_answer_changes_maps_less_than_the_edge_map(seed):
    _, of_scenes = networks(seed)
    bare, shown, _, _, inside = shown_to(seed)
    patched = without_effect(of_scenes, bare, inside, seed)
    logits = [(of_scenes.predict(x) - of_scenes.predict(bare)).abs().mean() for x in (patched, shown)]
    pixels = [(x - bare).abs().mean() for x in (patched, shown)]
    assert logits[0] < logits[1] / 4  # what the object does to the answer
    assert pixels[0] > pixels[1]

    def change(method):
        return (share(of_scenes, patched, method, inside) - share(of_scenes, bare, method, inside)).abs()

    edges = change("edge_map")
    for method in METHODS:
        assert interval(edges - change(method)).low > 0
