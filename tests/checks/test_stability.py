"""Stability: what follows the picture is stable, noise drawn anew is not, and a changed prediction is counted apart."""

import pytest
import torch
from scipy import ndimage
from torch import nn

import seewhy as sw
from nets import images, linear, tiny_cnn
from seewhy.checks.stability import ALL, MOVES, _augmented, _compared, _moved
from seewhy.maps import Maps
from seewhy.similarity import rank_correlation, rank_correlation_table
from seewhy.target import PREDICTED, logit

MODEL = sw.wrap(tiny_cnn(), size=32, batch_size=8)
N = 8


def stability(maps, n=N, model=MODEL, target=PREDICTED, x=None, **keywords):
    maps = sw.bind(maps) if isinstance(maps, str) else maps
    return sw.checks.stability(model, images(n) if x is None else x, target, maps, **{"samples": 2, **keywords})


def drawing(raw_of, outputs_of=None):
    """A method whose maps are a function of the picture."""

    def maps(model, x, target):
        outputs = None if outputs_of is None else outputs_of(x)
        return Maps(raw_of(x).float(), logit(0), torch.zeros(len(x)), outputs)

    return maps


def gray(x):
    return x.mean(1)


def number(found, name, kind=None):
    return (found[name].interval if kind is None else found[name].controls[kind]).value


# -- known answers


def test_a_map_that_follows_the_picture_is_stable_and_noise_drawn_anew_is_not():
    found = stability(drawing(gray))
    assert found.verdict == "pass"
    assert number(found, "spearman") > 0.9
    assert number(found, "spearman", "edge_map") > 0.5
    assert number(found, "spearman", "random_map") == pytest.approx(0, abs=0.03)
    assert number(found, "max_sensitivity", "random_map") > 0.5 > 0.1 > number(found, "max_sensitivity")
    assert "nothing of faithfulness" in found.sentence


def test_new_noise_in_every_copy_fails():
    found = stability("random_map")
    assert found["spearman"].null.n == 5 * N * (N - 1)
    assert found["spearman"].interval.value == pytest.approx(0, abs=0.03)
    assert found.verdict == "fail"


def test_a_method_that_depends_on_the_picture_by_its_brightness_only_is_no_more_alike_than_other_images():
    patterns = torch.rand(64, 32, 32, generator=torch.Generator().manual_seed(0)) - 0.5

    def chaotic(x):
        return patterns[(x.sum((1, 2, 3)) * 1e4).long() % 64]

    assert stability(drawing(chaotic)).verdict != "pass"


def test_a_linear_network_has_a_gradient_that_noise_does_not_move():
    x = images(N)
    found = stability(
        "gradient", model=sw.wrap(linear(), size=32), target=logit(1), x=x, augmentations=["noise", "contrast"]
    )
    assert number(found, "max_sensitivity") == number(found, "local_lipschitz") == number(found, "relative_l2") == 0
    assert number(found, "spearman") == pytest.approx(1)


class Quadratic(nn.Module):
    """logit 0 = x A x / 2 of the pixels x, A symmetric: its gradient is A x; logit 1 is never the largest."""

    def __init__(self, a):
        super().__init__()
        self.a = nn.Parameter(a)

    def forward(self, x):
        x = x.flatten(1)
        score = (x @ self.a * x).sum(1) / 2
        return torch.stack([score, score.detach() - 1], 1)


def lipschitz_of_a_quadratic(a, x):
    model = sw.wrap(Quadratic(a), mean=(0.0,), std=(1.0,), size=8, batch_size=8)
    found = stability("gradient", model=model, target=logit(0), x=x, augmentations=["noise"], samples=4, radius=0.1)
    return torch.tensor(found["local_lipschitz"].per_image)


def test_the_gradient_of_a_quadratic_is_as_steep_as_its_matrix_and_what_is_clamped_away_is_no_change():
    gray, black_and_white = images(6, channels=1, size=(8, 8)), images(6, channels=1, size=(8, 8)).round()
    for x in (gray, black_and_white):  # half of the noise leaves the range of black and white pixels
        multiple = lipschitz_of_a_quadratic(3 * torch.eye(64), x)  # |3 d| / (|3 x| |d|)
        assert torch.allclose(multiple, 1 / x.flatten(1).norm(dim=1), rtol=1e-4)
        a = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
        a = (a + a.T) / 2
        bound = torch.linalg.matrix_norm(a, 2) / (x.flatten(1) @ a).norm(dim=1)
        steep = lipschitz_of_a_quadratic(a, x)
        assert ((0.2 * bound < steep) & (steep < bound)).all()


def test_shifting_a_picture_shifts_its_map_and_the_way_back_is_exact():
    found = stability(drawing(gray), augmentations=["shift"])
    assert found["spearman"].per_image == pytest.approx([1.0] * N)
    assert number(found, "relative_l2") < 1e-6


def test_a_map_that_stays_where_it_is_does_not_follow_a_shift():
    fixed = torch.rand(1, 32, 32, generator=torch.Generator().manual_seed(3))
    found = stability(drawing(lambda x: fixed.expand(len(x), -1, -1)), augmentations=["shift"])
    assert abs(number(found, "spearman")) < 0.1
    assert found["spearman"].null.median == pytest.approx(number(found, "spearman"))  # it is the same for every image
    assert found.verdict != "pass"


def test_a_map_twice_as_large_is_at_a_relative_distance_of_one_and_perfectly_correlated():
    x = images(3)

    def maps(model, given, target):
        factor = 1 if torch.equal(given, x) else 2
        return Maps(factor * gray(x), logit(0), torch.zeros(len(x)), None)

    found = stability(maps, x=x, augmentations=["noise"])
    assert number(found, "spearman") == pytest.approx(1)
    assert number(found, "relative_l2") == pytest.approx(1)
    assert number(found, "max_sensitivity") == pytest.approx(1)


def test_the_largest_of_the_samples_counts():
    x = images(3)
    calls = []

    def maps(model, given, target):
        calls.append(given)
        factor = {1: 1.0, 2: 1.0, 3: 1.1, 4: 1.5, 5: 1.2}[len(calls)]
        return Maps(factor * gray(x), logit(0), torch.zeros(len(x)), None)

    found = stability(maps, x=x, augmentations=["noise"], samples=3, radius=0.01)
    assert number(found, "max_sensitivity") == pytest.approx(0.5, abs=1e-6)
    away = (calls[3] - x).flatten(1).norm(dim=1)  # the copy whose map is 1.5 times as large
    assert found["local_lipschitz"].per_image == pytest.approx((0.5 / away).tolist(), rel=1e-5)
    assert all(0 < (given - x).abs().max() <= 0.01 + 1e-6 for given in calls[2:])
    assert not torch.equal(calls[2], calls[3])
    assert found.details["maps_per_image"] == len(calls) == 5


# -- moving there and back


@pytest.mark.parametrize("size", [(9, 13), (16, 16)])
def test_a_move_is_what_scipy_calls_it(size):
    x = torch.rand(1, 1, *size, dtype=torch.float64)
    moved = _moved(x, *MOVES["shift"])[0, 0].numpy()
    assert moved == pytest.approx(ndimage.shift(x[0, 0].numpy(), (2, 3), order=1, mode="nearest"))
    turned = _moved(x, *MOVES["rotation"])[0, 0].numpy()
    for sign in (-1, 1):
        twin = ndimage.rotate(x[0, 0].numpy(), sign * 5, reshape=False, order=1, mode="nearest")
        if turned == pytest.approx(twin):
            break
    else:
        raise AssertionError


@pytest.mark.parametrize("name", sorted(MOVES))
def test_the_way_back_is_the_inverse(name):
    y, x = torch.meshgrid(*[torch.arange(20.0, dtype=torch.float64)] * 2, indexing="ij")
    ramp = (y + 0.3 * x)[None]  # n-linear: interpolation is exact
    there = _moved(ramp[:, None], *MOVES[name])[:, 0]
    table, distance = _compared(ramp, there, name, (20, 20))
    assert distance.max() < 0.02  # where the border was repeated
    back = _moved(there[:, None], *[-v for v in MOVES[name]])[:, 0]
    assert (back - ramp)[:, 5:-5, 5:-5].abs().max() < 1e-9
    assert table.item() > 0.999


def test_copies_stay_in_the_range_of_pictures():
    x = images(2).round()  # black and white
    for name in ALL:
        copy = _augmented(x, name, 0)
        assert copy.shape == x.shape
        assert copy.dtype == x.dtype
        assert 0 <= copy.min() <= copy.max() <= 1
        assert not torch.equal(copy, x)


def test_the_copy_of_an_image_does_not_depend_on_its_neighbors():
    x = images(4)
    for name in ALL:
        assert torch.equal(_augmented(x, name, 3)[2:3], _augmented(x[2:3], name, 3))
    one, many = (stability(drawing(gray), x=given) for given in (x[2:3], x))
    assert one["spearman"].per_image[0] == pytest.approx(many["spearman"].per_image[2])


def test_the_table_of_correlations_has_the_pairs_on_its_diagonal():
    a, b = torch.rand(4, 6, 6).double(), torch.rand(4, 6, 6).double()
    table = rank_correlation_table(a.flatten(1), b.flatten(1))
    assert torch.allclose(table.diagonal(), rank_correlation(a, b))
    assert torch.allclose(table[1, 3], rank_correlation(a[1:2], b[3:4])[0])


# -- what is left out, and said


def test_images_whose_prediction_changes_are_counted_apart():
    x = images(N)

    def outputs(given):  # the first two images change sides with every change
        table = torch.tensor([[0.0, 1.0]]).repeat(len(given), 1)
        if not torch.equal(given, x):
            table[:2] = torch.tensor([1.0, 0.0])
        return table

    def raw(given):
        return gray(given) if torch.equal(given, x) else torch.cat([torch.rand(2, 32, 32), gray(given)[2:]])

    found = stability(drawing(raw, outputs), x=x)
    assert found["prediction_flips"].per_image == (1, 1, *[0] * (N - 2))
    assert found.details["prediction_changes"] == dict.fromkeys(ALL, 2)
    assert found["spearman"].interval.n == found["max_sensitivity"].interval.n == N - 2
    assert found["local_lipschitz"].interval.n == found["local_lipschitz"].controls["edge_map"].n == N - 2
    assert found["spearman"].controls["edge_map"].n == N - 2
    assert number(found, "spearman") > 0.9  # what they give now is not mixed in
    assert found.verdict == "not valid"  # 2 of 8
    assert "2 of 8" in found.sentence


def test_the_class_of_the_clean_image_is_asked_in_every_copy():
    asked = []

    def maps(model, x, target):
        asked.append(target)
        return sw.bind("gradient")(model, x, target)

    stability(maps)
    assert asked[0] is PREDICTED
    assert all(torch.equal(one.index, asked[1].index) for one in asked[1:])


def test_a_constant_map_is_perfectly_stable_and_therefore_excluded():
    found = stability(drawing(lambda x: torch.ones(len(x), 8, 8)))
    assert found.excluded == dict.fromkeys(range(N), "constant")
    assert found.verdict == "not valid"
    assert found["spearman"].interval.n == found["max_sensitivity"].controls["edge_map"].n == 0


def test_a_copy_whose_map_vanishes_is_counted():
    x = images(20)

    def raw(given):
        maps = gray(given)
        maps[0] *= float(torch.equal(given, x))
        return maps

    found = stability(drawing(raw), x=x)
    assert found.details["copies_without_rank"] == 5
    assert found["relative_l2"].per_image[0] == found["max_sensitivity"].per_image[0] == 1
    assert found["spearman"].interval.n == 19


def test_one_image_has_no_null_and_no_verdict():
    found = stability("gradient", n=1)
    assert found.verdict == "no verdict"
    assert "no other images" in found.sentence


# -- nonsense raises


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        ({"augmentations": ["shear"]}, "unknown augmentation 'shear'"),
        ({"augmentations": []}, "augmentations"),
        ({"augmentations": "shift"}, "augmentations"),
        ({"radius": 0}, "radius"),
        ({"samples": 0}, "samples"),
    ],
)
def test_what_does_not_fit_is_refused(keywords, said):
    with pytest.raises(sw.UsageError, match=said):
        stability("gradient", **keywords)


def test_volumes_are_not_moved_and_unknown_bounds_are_refused():
    with pytest.raises(sw.UsageError, match=r"augmentations=\('brightness', 'contrast', 'noise'\)"):
        stability("gradient", x=torch.rand(1, 3, 8, 8, 8))
    bare = sw.wrap(tiny_cnn(), size=32)
    bare.bounds = None
    with pytest.raises(sw.RefusalError, match="bounds"):
        stability("gradient", model=bare)
