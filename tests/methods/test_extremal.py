import pytest
import torch
from functions import explained
from test_perturbation import RegionMean, same
from torch import nn
from twins_perturbation import blurred_by_mask, smooth_maximum

import seewhy as sw
from nets import images, signal, tiny_cnn, tiny_vit, volume
from seewhy.methods import extremal
from seewhy.methods.extremal import DOUBLINGS, LEVELS, PENALTY, TEMPERATURE, wanted_cells
from seewhy.perturb import gaussian_blur


class Spot(nn.Module):
    """How much fine detail is left in one corner: what blur destroys."""

    def __init__(self, rows, columns):
        super().__init__()
        self.rows, self.columns = rows, columns

    def forward(self, x):
        part = x[:, :, self.rows, self.columns]
        return (part[..., 1:] - part[..., :-1]).square().mean((1, 2, 3))[:, None]


def extremal_map(net, x, **given):
    return sw.explain(sw.wrap(net, batch_size=8), x, "extremal_perturbation", **given)


# -- its parts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "sigma"), [((9, 7), 1.5), ((5, 12), 3.0)])
def test_the_smooth_maximum_equals_its_slow_twin_one_neighbor_at_a_time(size, sigma):
    free = torch.rand(2, *size, generator=torch.Generator().manual_seed(0))
    lattice = extremal._lattice(torch.Size(size), 1, sigma, torch.device("cpu"))
    for i in range(2):
        assert torch.allclose(lattice.cells(free)[i], smooth_maximum(free[i], sigma, TEMPERATURE), atol=1e-6)
    assert torch.allclose(lattice.mask(free), free, atol=1e-6)  # nodes one pixel apart are the pixels


def test_one_open_node_opens_its_neighborhood_and_no_more():
    free = torch.zeros(1, 21, 21)
    free[0, 10, 10] = 1
    lattice = extremal._lattice(torch.Size((21, 21)), 1, 4.0, torch.device("cpu"))
    cells = lattice.cells(free)[0]
    assert (cells[8:13, 10] > 0.99).all()  # flat up to sigma / 2
    assert (cells[10, 10:].diff() <= 1e-6).all()
    assert float(cells[10, 20]) < 0.01


def test_a_coarse_lattice_is_interpolated_between_node_centers():
    lattice = extremal._lattice(torch.Size((8, 12)), 4, 1.0, torch.device("cpu"))
    cells = torch.rand(1, 2, 3)
    wanted = nn.functional.interpolate(cells[None], size=(8, 12), mode="bilinear", align_corners=False)[0]
    assert torch.allclose(lattice.mask(cells), wanted, atol=1e-6)
    assert float(lattice.mask(cells).mean()) == pytest.approx(float(cells.mean()), abs=1e-6)


@pytest.mark.parametrize("area", [0.05, 0.3, 0.77])
def test_the_area_constraint_asks_for_the_top_share_and_treats_ties_alike(area):
    cells = torch.rand(3, 20, 20, generator=torch.Generator().manual_seed(1))
    cells[1] = 0.4
    wanted = wanted_cells(cells, area)
    assert torch.allclose(wanted.flatten(1).mean(1), torch.full((3,), area), atol=1e-4)
    assert torch.allclose(wanted[1], torch.full((20, 20), area), atol=1e-4)
    order = cells[0].flatten().argsort(descending=True)
    top = wanted[0].flatten()[order]
    assert (top[: max(int(400 * (area - 0.03)), 1)] == 1).all()  # the ramp is 0.05 wide, the cells uniform
    assert (top[int(400 * (area + 0.04)) :] == 0).all()
    assert (top.diff() <= 1e-6).all()


def test_each_pixel_is_read_off_the_two_blurs_around_its_level():
    x = images(2)
    m = torch.rand(2, 32, 32, generator=torch.Generator().manual_seed(2))
    m[0, :4], m[0, 4:8] = 0, 1
    pyramid = extremal._pyramid(x, 0.09)
    found = extremal._perturbed(pyramid, m)
    for i in range(2):
        assert torch.allclose(found[i], blurred_by_mask(list(pyramid[i]), m[i]), atol=1e-5)
    strongest = gaussian_blur(x, 0.09 * 32)
    assert torch.allclose(found[0, :, :4], strongest[0, :, :4], atol=1e-6)
    assert torch.allclose(found[0, :, 4:8], x[0, :, 4:8], atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_the_derivative_by_the_mask_is_that_of_the_nearest_levels_at_the_ends_too(value):
    pyramid = extremal._pyramid(images(1), 0.09)
    m = torch.full((1, 32, 32), value, requires_grad=True)
    shown = extremal._perturbed(pyramid, m)
    (slope,) = torch.autograd.grad(shown.sum(), m)
    below = min(int((LEVELS - 1) * (1 - value)), LEVELS - 2)
    wanted = (LEVELS - 1) * (pyramid[:, below] - pyramid[:, below + 1]).sum(1)
    assert torch.allclose(slope, wanted, atol=1e-4)


def test_the_whole_optimization_equals_its_slow_twin_through_autograd():
    net, x, area = tiny_cnn().double(), images(1, size=(5, 6)), 0.2
    given = {"area": area, "iterations": 4, "step": 1, "sigma": 1.0, "learning_rate": 0.6, "momentum": 0.8, "blur": 0.5}
    e = extremal_map(net, x, target=1, **given)
    levels = [x[0], *(gaussian_blur(x, 0.5 * 5 * k / (LEVELS - 1))[0] for k in range(1, LEVELS))]
    free, velocity, unit = torch.full((5, 6), 0.5), torch.zeros(5, 6), None
    for k in range(4):
        leaf = free.clone().requires_grad_()
        cells = smooth_maximum(leaf, 1.0, TEMPERATURE)
        score = net(blurred_by_mask(levels, cells)[None].double())[0, 1]
        (up,) = torch.autograd.grad(score, leaf, retain_graph=True)
        penalty = (cells - wanted_cells(cells.detach()[None], area)[0]).square().mean()
        (down,) = torch.autograd.grad(penalty, leaf)
        unit = up.abs().sum() if unit is None else unit
        velocity = 0.8 * velocity + up / unit - PENALTY * 2 ** (DOUBLINGS * k / 4) * down
        free = (free + 0.6 * velocity).clamp(0, 1)
    wanted = smooth_maximum(free, 1.0, TEMPERATURE)
    assert torch.allclose(e.raw[0], wanted, atol=1e-4)
    assert float(e.raw.std()) > 0.01
    with torch.no_grad():
        preserved = float(net(blurred_by_mask(levels, wanted)[None].double())[0, 1])
    assert float(e.evidence["preserved_score"]) == pytest.approx(preserved, abs=1e-4)


# -- what it finds ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "columns"), [(slice(0, 12), slice(0, 12)), (slice(18, 30), slice(8, 20))])
def test_the_region_that_the_score_reads_is_found(rows, columns):
    model = sw.wrap(Spot(rows, columns), task="regression")
    e = sw.explain(model, images(1), "extremal_perturbation", area=0.15, iterations=60)
    inside = torch.zeros(32, 32, dtype=torch.bool)
    inside[rows, columns] = True
    for i in range(1):
        assert float(e.raw[i][inside].mean()) > 0.7
        assert float(e.raw[i][~inside].mean()) < 0.15
    assert (e.evidence["preserved_score"] > 0.7 * e.scores).all()
    assert (e.evidence["deleted_score"] < 0.5 * e.scores).all()
    assert (e.evidence["shifted_score"] < 0.5 * e.evidence["preserved_score"]).all()


@pytest.mark.parametrize("area", [0.05, 0.2, 0.5])
def test_the_mask_reaches_the_area_that_is_asked_for_and_is_nearly_binary(area):
    e = extremal_map(tiny_vit(), images(2), target=1, area=area, iterations=60, step=2)
    assert torch.allclose(e.evidence["area"], e.raw.flatten(1).mean(1), atol=1e-6)
    assert (e.evidence["area"] - area).abs().max() < 0.05 + 0.1 * area
    assert float(((e.raw > 0.1) & (e.raw < 0.9)).float().mean()) < (0.35 if area < 0.5 else 0.65)
    assert float(e.raw.min()) >= 0
    assert float(e.raw.max()) <= 1


def test_the_optimized_mask_beats_the_same_mask_elsewhere():
    e = extremal_map(tiny_cnn(), images(3), target=2, iterations=60, step=2)
    assert (e.evidence["preserved_score"] > e.evidence["shifted_score"]).all()


def test_the_unit_of_the_score_does_not_change_the_mask():
    net, x = tiny_cnn(), images(2)
    one = extremal_map(net, x, target=sw.target.of(lambda o: o[:, 1]), iterations=30, step=2)
    for unit in (2.0**-40, 2.0**20):
        scaled = extremal_map(net, x, target=sw.target.of(lambda o, unit=unit: unit * o[:, 1]), iterations=30, step=2)
        assert torch.equal(one.raw, scaled.raw)
        assert torch.equal(one.evidence["preserved_score"] * unit, scaled.evidence["preserved_score"])


def test_a_mask_is_bit_equal_in_every_batch_however_long_the_run():
    net, x = tiny_cnn(), images(3)
    together = extremal_map(net, x, target=[1, 4, 1], iterations=60, step=2)
    for i, k in enumerate((1, 4, 1)):
        alone = extremal_map(net, x[i : i + 1], target=k, iterations=60, step=2)
        assert torch.equal(together.raw[i], alone.raw[0])
        for name, values in alone.evidence.items():
            assert torch.equal(together.evidence[name][i], values[0])


@pytest.mark.parametrize(("net", "x"), [(signal(), images(2, 2, (40,))), (volume(), images(2, 1, (8, 9, 10)))])
def test_one_and_three_axes_have_masks_too(net, x):
    e = extremal_map(net, x, target=1, iterations=8)
    assert e.raw.shape == (2, *x.shape[2:])
    assert e.ok == [True, True]


def test_a_picture_without_detail_has_nothing_to_blur_and_says_so():
    e = extremal_map(tiny_cnn(), torch.full((1, 3, 32, 32), 0.5), target=1, iterations=3)
    assert float(e.evidence["gradient_norm"]) < 1e-4
    flat = explained(lambda x: 0 * x.sum(1), images(1, 1, (8, 8)), "extremal_perturbation", iterations=3)
    assert flat.status == [sw.Status.ZERO_GRADIENT]


def test_rows_are_the_iterations_and_five_forwards():
    model = sw.wrap(RegionMean(slice(0, 4), slice(0, 4)), task="regression")
    e = sw.explain(model, images(2), "extremal_perturbation", iterations=7)
    assert e.evidence["gradient_rows"].tolist() == [7, 7]
    assert e.evidence["forward_rows"].tolist() == [5, 5]
    assert same(e.evidence["blurred_score"], gaussian_blur(images(2), 0.09 * 32)[:, 0, :4, :4].mean((1, 2)))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"area": 0}, "area"),
        ({"area": 1}, "area"),
        ({"iterations": 0}, "iterations"),
        ({"step": 0}, "step"),
        ({"sigma": 0}, "sigma"),
        ({"blur": 0}, "blur"),
        ({"learning_rate": -1}, "learning_rate"),
        ({"momentum": 1}, "momentum"),
        ({"momentum": -0.1}, "momentum"),
    ],
)
def test_settings_that_cannot_be_meant_are_errors_before_any_row(bad, message):
    model = sw.wrap(tiny_cnn())
    with pytest.raises(sw.UsageError, match=message):
        sw.explain(model, images(1), "extremal_perturbation", **bad)
    assert model.forward_rows + model.gradient_rows == 0
