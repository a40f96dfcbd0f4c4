"""The grid pointing game on networks whose every answer is known: pictures of one color channel each, and their mean."""

import pytest
import torch
from torch import nn

import seewhy as sw
from nets import images, signal, tiny_unet, tiny_vit
from seewhy.checks.grid_pointing import NO_MASS, NO_PLACE, NOT_BY_CELLS, _shares, _side_by_side
from seewhy.maps import Maps
from seewhy.target import PREDICTED, logit

SIDE, N = 8, 24


class Colors(nn.Module):
    """Logit k = 10 times the mean of channel k: it ends in global average pooling, and its evidence is the channel itself."""

    def forward(self, x):
        return 10 * x.mean((2, 3))


class Weighted(nn.Module):
    """The same of four quarters of the picture, each with a weight of its own: no pooling head, of any size."""

    def __init__(self, weights):
        super().__init__()
        self.weights = torch.tensor(weights).view(1, 1, 2, 2)

    def forward(self, x):
        return 10 * (nn.functional.adaptive_avg_pool2d(x, 2) * self.weights).sum((2, 3))


class Shares(nn.Module):
    """Each channel's share of all the light: a black picture has none, and no answer."""

    def forward(self, x):
        return 10 * x.sum((2, 3)) / x.sum((1, 2, 3))[:, None]


def model(net=None):
    return sw.wrap(net or Colors(), mean=(0.0,) * 4, std=(1.0,) * 4, size=SIDE, batch_size=16)


def pictures(n=N, plain=False):
    """Picture i has only channel i % 4, the later the darker; plain: 1 everywhere there."""
    light = torch.linspace(1, 0.4, n).view(n, 1, 1) * torch.rand(
        n, SIDE, SIDE, generator=torch.Generator().manual_seed(0)
    )
    x = torch.zeros(n, 4, SIDE, SIDE)
    x[torch.arange(n), torch.arange(n) % 4] = torch.ones_like(light) if plain else light
    return x


def drawing(raw_of):
    """A method that draws `raw_of(x, k)` of pictures x and the channels k that are asked for, (N, C, H, W) and (N, 1, 1)."""

    def maps(model, x, target):
        rows = torch.arange(len(x))
        own = x[rows, target.at(target.index, rows)]
        return Maps(raw_of(x, own).float(), target, torch.zeros(len(x)), None)

    return maps


def perfect(x, own):
    return own


def grid_pointing(maps=perfect, x=None, target=PREDICTED, net=None, **keywords):
    maps = sw.bind(maps) if isinstance(maps, str) else drawing(maps)
    return sw.checks.grid_pointing(model(net), pictures() if x is None else x, target, maps, **keywords)


def number(found, kind=None):
    main = found["share_in_cell"]
    return (main.interval if kind is None else main.controls[kind]).value


# -- perfect is best, random is chance


def test_a_map_of_the_evidence_itself_lies_on_its_own_picture_whole():
    found = grid_pointing()
    assert found["share_in_cell"].per_image == (1.0,) * N
    assert found["drawn_on"].per_image == (1.0,) * N
    assert (found["share_in_cell"].interval.n, found["share_in_cell"].interval.clusters) == (24, 6)
    assert found.verdict == "pass"
    assert "In 6 mosaics of 2 x 2 pictures" in found.sentence
    assert number(found, "chance") == 0.25
    assert not found.excluded


@pytest.mark.parametrize("method", ["random_map", "edge_map", "center_map"])
def test_a_map_that_does_not_depend_on_the_class_has_exactly_what_chance_gives_and_fails(method):
    found = grid_pointing(method)
    assert number(found) == pytest.approx(0.25, abs=1e-6)
    assert found.verdict == "fail"
    for control in ("random_map", "edge_map"):
        assert number(found, control) == pytest.approx(0.25, abs=1e-9)


def test_a_map_of_the_other_classes_fails():
    found = grid_pointing(lambda x, own: x.sum(1) - own)
    assert number(found) == 0
    assert found.verdict == "fail"


def test_a_map_that_is_three_times_as_strong_on_its_own_picture_has_half_its_mass_there():
    found = grid_pointing(lambda x, own: 3 * own + (x.sum(1) - own), pictures(plain=True))
    assert number(found) == pytest.approx(0.5)
    assert found.verdict == "pass"


def test_a_map_that_is_right_in_half_of_the_mosaics_is_unclear():
    def maps(x, own):
        bright = (x.flatten(1).amax(1) > 0.7).view(-1, 1, 1)
        return torch.where(bright, 3 * own + (x.sum(1) - own), x.sum(1) - own)

    x = pictures(plain=True) * torch.cat([torch.ones(12), torch.full((12,), 0.5)]).view(-1, 1, 1, 1)
    found = grid_pointing(maps, x)
    assert number(found) == pytest.approx(0.25)
    assert found.verdict == "unclear"


def test_evidence_against_the_class_is_no_mass():
    found = grid_pointing(lambda x, own: 2 * own - x.sum(1))  # minus one on the others
    assert number(found) == 1


def test_the_methods_of_the_house_on_networks_whose_maps_are_known():
    """A linear network's gradient is the same everywhere, its product with the picture is the evidence; Grad-CAM is CAM."""
    assert set(grid_pointing("gradient").excluded.values()) == {"constant"}
    assert number(grid_pointing("gradient_x_input")) == 1
    net = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4)).eval()
    with torch.no_grad():
        net[0].weight.copy_(torch.eye(4).view(4, 4, 1, 1))
        net[4].weight.copy_(10 * torch.eye(4))
        for layer in (net[0], net[4]):
            layer.bias.zero_()
    card = sw.check(model(net), pictures(), "grad_cam", only="grid_pointing")
    found = card["grid_pointing"]
    assert number(found) == pytest.approx(1)
    assert found.verdict == "pass"
    assert found.details["size"] == [16, 16]
    assert found.details["layer"] == card.explanation.layer


# -- how mosaics are made, and the share is taken


def test_mosaics_hold_different_classes_and_the_surest_come_first():
    x = pictures()[torch.randperm(N, generator=torch.Generator().manual_seed(1))]
    found = grid_pointing(x=x)
    sure = model().predict(x).softmax(1).amax(1)
    mosaics = torch.tensor(found.details["mosaics"])
    assert sorted(mosaics.flatten().tolist()) == list(range(N))
    assert all(len(set(classes)) == 4 for classes in found.details["classes"])
    of_class = [sure[mosaics.flatten()[torch.tensor(found.details["classes"]).flatten() == k]] for k in range(4)]
    assert all(torch.equal(values, values.sort(descending=True).values) for values in of_class)


def test_pictures_stand_row_by_row():
    parts = torch.arange(4.0).view(1, 4, 1, 1, 1).expand(1, 4, 3, 2, 2)
    assert _side_by_side(parts, 2)[0, 2].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]


@pytest.mark.parametrize(("grid", "cells"), [((5, 7), 2), ((4, 4), 2), ((7, 10), 3), ((1, 1), 2)])
def test_the_share_is_taken_by_area_also_where_a_value_lies_on_a_border(grid, cells):
    raw = torch.randn(2 * cells**2, *grid, generator=torch.Generator().manual_seed(0))
    raw[raw.flatten(1).amax(1) <= 0] *= -1
    fine = raw.double().clamp_min(0).repeat_interleave(cells, 1).repeat_interleave(cells, 2)
    own = []
    for r, values in enumerate(fine):
        y, x = divmod(r % cells**2, cells)
        h, w = grid
        own.append(values[y * h : (y + 1) * h, x * w : (x + 1) * w].sum() / values.sum())
    assert torch.allclose(_shares(raw, cells).flatten(), torch.stack(own))


def test_nine_pictures_make_a_mosaic_of_three_by_three():
    x = torch.zeros(9, 9, SIDE, SIDE)
    x[torch.arange(9), torch.arange(9)] = 1
    net = sw.wrap(Colors(), mean=(0.0,) * 9, std=(1.0,) * 9, size=SIDE, batch_size=16)
    found = sw.checks.grid_pointing(net, x, PREDICTED, drawing(perfect), cells=3)
    assert found["share_in_cell"].per_image == (1.0,) * 9
    assert number(found, "chance") == pytest.approx(1 / 9)
    assert found.verdict == "no verdict"


def test_the_asked_classes_are_taken_where_classes_are_asked():
    x = torch.cat([pictures(plain=True) * 0.9, pictures(4, plain=True)])
    x[:, 0] += 0.95  # every picture is of class 0 now, and asked for its own
    x = x / 2
    found = grid_pointing(x=x, target=logit(torch.arange(28) % 4))
    assert found.details["classes"][0].count(0) == 1
    with pytest.raises(sw.RefusalError, match="28 given, classes among them: 1"):
        grid_pointing(x=x, target=logit(2))


# -- what does not count, and is counted


def test_a_mosaic_whose_class_is_stronger_in_another_picture_is_left_out_whole():
    x = pictures(28, plain=True)
    x[0, 0], x[1, 0] = 0.5, 0.6  # class 0 is stronger in the picture of class 1
    found = grid_pointing(x=x[[*range(4, 28), 0, 1, 2, 3]])
    assert found.excluded == dict.fromkeys(range(24, 28), NOT_BY_CELLS)
    assert found["drawn_on"].per_image[24:] == (0, 1, 1, 1)
    assert found["share_in_cell"].interval.n == 24
    assert found.verdict == "pass"
    assert "1 more were left out" in found.sentence


def test_a_map_without_a_positive_value_takes_its_mosaic_out_and_more_than_a_tenth_are_too_many():
    def maps(x, own):
        raw = own.clone()
        raw[0] *= -1
        return raw

    found = grid_pointing(maps)
    assert list(found.excluded.values()) == [NO_MASS] * 4
    assert found.verdict == "not valid"
    assert "1 of 6 mosaics" in found.sentence
    found = grid_pointing(maps, pictures(44))
    assert found["share_in_cell"].interval.n == 40
    assert found.verdict == "pass"


def test_images_without_a_place_and_without_an_answer_are_counted():
    x = torch.cat([torch.zeros(1, 4, SIDE, SIDE), pictures(), pictures(1)])
    found = grid_pointing(x=x, net=Shares())
    assert found.excluded[0] == "the network's answer is not finite"
    assert list(found.excluded.values()).count(NO_PLACE) == 1
    assert found["share_in_cell"].interval.n == N


def test_below_six_mosaics_there_is_no_verdict():
    found = grid_pointing(x=pictures(20))
    assert number(found) == 1
    assert found.verdict == "no verdict"
    assert "6 mosaics are needed" in found.sentence


# -- networks that it is no test of


@pytest.mark.parametrize(
    ("net", "said"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(4 * SIDE * SIDE, 4)), "does not take a mosaic of 16 x 16 pixels"),
        (nn.Sequential(nn.Conv2d(4, 4, SIDE, SIDE), nn.Flatten()), r"is \(16,\) a picture, not 4"),
        (Weighted([4.0, 0.0, 0.0, 0.0]), "none of 6 mosaics is answered by its cells"),
        (Weighted([5.0, -1.0, -1.0, -1.0]), "none of 6 mosaics is answered by its cells"),
    ],
    ids=["fixed size", "no pooling", "one corner", "weighted quarters"],
)
def test_a_network_that_does_not_answer_mosaics_by_their_cells_is_refused(net, said):
    with pytest.raises(sw.RefusalError, match=said):
        grid_pointing(net=net.eval(), target=logit(torch.arange(N) % 4))


def test_fixed_positions_and_other_outputs_are_refused():
    with pytest.raises(sw.RefusalError, match="does not take a mosaic of 64 x 64 pixels"):
        sw.checks.grid_pointing(sw.wrap(tiny_vit(), size=32), images(4), logit(torch.arange(4)), sw.bind("gradient"))
    unet = sw.wrap(tiny_unet(), size=32, task="segmentation")
    with pytest.raises(sw.RefusalError, match="asked for classes"):
        sw.checks.grid_pointing(unet, images(4), PREDICTED, sw.bind("gradient"))
    wave = sw.wrap(signal(), mean=(0.0,) * 2, std=(1.0,) * 2)
    with pytest.raises(sw.RefusalError, match="pictures"):
        sw.checks.grid_pointing(wave, torch.rand(4, 2, 32), PREDICTED, sw.bind("gradient"))
    with pytest.raises(sw.RefusalError, match="asked for classes"):
        grid_pointing(target=sw.target.margin(1, 0))


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        ({"cells": 1}, "cells"),
        ({"cells": 2.0}, "cells"),
        ({"seed": -1}, "seed"),
        ({"target": logit(4)}, "out of range"),
        ({"target": logit([0, 1])}, "2 targets for 24 images"),
    ],
)
def test_what_does_not_fit_is_refused(keywords, said):
    with pytest.raises(sw.UsageError, match=said):
        grid_pointing(**keywords)


def test_too_few_classes_are_said_with_their_number():
    with pytest.raises(sw.RefusalError, match=r"takes 9 images .*; 24 given, classes among them: 4.*cells=2"):
        grid_pointing(cells=3)
