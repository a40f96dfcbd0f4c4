"""Maps where the right answer was put into the training data: a tag in a corner that tells the label by rho.

As in the watermark of Lapuschkin 2019, in three strengths with the same seeds, beside a decoy in the other corner that tells
nothing. What the networks use is tested first.
"""

import functools

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

import seewhy as sw
from seewhy.intervals import interval

SEEDS, RHOS = range(5), (0.0, 0.5, 1.0)
METHODS = {
    "gradient": {},
    "integrated_gradients": {"rule": "midpoint", "steps": 8},
}
TAG, DECOY = (slice(0, 3), slice(0, 3)), (slice(0, 3), slice(9, 12))  # upper left corner, upper right corner


def digits():
    found = load_digits()
    return torch.tensor(found.images / 16, dtype=torch.float32), torch.tensor(found.target)


def trained(x, labels, seed, epochs, channels=16):
    """A network with two convolutions and global average pooling, wrapped."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Conv2d(1, 12, 4, 2, 1),
            nn.ReLU(),
            nn.Conv2d(12, channels, 3, 1, 1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(channels, int(labels.max()) + 1),
        )
        optimizer = torch.optim.Adam(net.parameters(), 0.01)
        for _ in range(epochs):
            for rows in torch.randperm(len(x)).split(64):
                optimizer.zero_grad()
                functional.cross_entropy(net(x[rows]), labels[rows]).backward()
                optimizer.step()
    return sw.wrap(net.eval(), mean=(0.0,), std=(1.0,), size=tuple(x.shape[2:]), batch_size=128)


def share(model, x, method, target, region):
    """Share of a map in a region, per image: of its positive part; of a gradient of |map|, as its sign says nothing."""
    maps = sw.explain(model, x, method, target, **METHODS[method]).maps
    mass = maps.abs() if method == "gradient" else maps.clamp_min(0)
    inside = mass[:, *region] if isinstance(region, tuple) else mass * region
    return inside.flatten(1).sum(1) / mass.flatten(1).sum(1)


def accuracy(model, x, labels):
    return float((model.predict(x).argmax(1) == labels).float().mean())


# -- a tag in the corner, beside a decoy that tells nothing


def tagged(x, tag, decoy):
    """Digits on 12 x 12 pixels with lines in a corner: lying where `tag`, standing in the other corner where `decoy`."""
    lying = torch.tensor([1.0, 0.0, 1.0])[:, None].expand(3, 3)
    found = functional.pad(x, (2, 2, 2, 2))[:, None].clone()
    for shown, (rows, columns), lines in ((tag, TAG, lying), (decoy, DECOY, lying.T)):
        corner = found[:, :, rows, columns]
        found[:, :, rows, columns] = torch.where(shown.view(-1, 1, 1, 1), lines, corner)
    return found


X, DIGIT = digits()
LARGE = (DIGIT >= 5).long()  # the label that the tag goes with
TRAIN, TEST = slice(0, 800), slice(1000, 1060)
ALL, NONE = torch.ones(60, dtype=torch.bool), torch.zeros(60, dtype=torch.bool)
TAG_SAYS = sw.target.margin(1, 0)


@functools.cache
def tag_network(rho, seed):
    """Trained where the tag has a correlation of rho with the label and the decoy none."""
    y = LARGE[TRAIN]
    drawn = torch.rand(2, len(y), generator=torch.Generator().manual_seed(seed))
    tag, decoy = drawn[0] < (1 + rho * (2 * y - 1)) / 2, drawn[1] < 0.5
    return trained(tagged(X[TRAIN], tag, decoy), y, seed, epochs=8)


def of_networks(number):
    """`number(network)` of each rho and seed: (3, 5)."""
    return torch.stack([torch.stack([number(tag_network(rho, seed)) for seed in SEEDS]) for rho in RHOS])


def assert_rises_with_rho(tag, decoy):
    """Mean of both over the images: (rhos, seeds) each. The interval is over networks: one network is one draw."""
    assert interval(tag[2] - tag[0]).low > 0
    assert tag[1].mean() < tag[2].mean()  # half the correlation is too little to tell from none in five networks
    nothing, all_of_it = (tag - decoy)[0], (tag - decoy)[2]
    assert interval(all_of_it - nothing).low > 0
    assert nothing.mean() < all_of_it.mean() / 2  # rho = 0 is the control: the tag is one of two corners with lines


def test_the_networks_use_the_tag_as_much_as_it_tells():
    def effect(model, without):
        said = [model.predict(tagged(X[TEST], *shown)) for shown in ((ALL, ALL), without)]
        change = said[0] - said[1]
        return (change[:, 1] - change[:, 0]).mean()

    tag, decoy = (of_networks(lambda model, one=one: effect(model, one)) for one in ((NONE, ALL), (ALL, NONE)))
    assert_rises_with_rho(tag, decoy)
    y = LARGE[TEST]
    for seed in SEEDS:
        honest, lying = (accuracy(tag_network(1.0, seed), tagged(X[TEST], t, ALL), y) for t in (y == 1, y == 0))
        assert honest > 0.95
        assert lying < 0.5
        assert accuracy(tag_network(0.0, seed), tagged(X[TEST], y == 0, ALL), y) > 0.7


@pytest.mark.parametrize("method", ["gradient", "integrated_gradients"])  # cells of Grad-CAM are larger than the tag
def test_the_mass_on_the_tag_rises_with_what_it_tells_and_a_tag_that_tells_nothing_has_a_decoys(method):
    x = tagged(X[TEST], ALL, ALL)
    tag, decoy = (
        of_networks(lambda model, one=one: share(model, x, method, TAG_SAYS, one).nanmean()) for one in (TAG, DECOY)
    )
    assert_rises_with_rho(tag, decoy)
