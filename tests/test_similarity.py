"""Similarities of maps against scikit-image and scipy, and what must not change them."""

import math

import pytest
import torch
from scipy import stats
from skimage.feature import hog
from skimage.metrics import structural_similarity

import seewhy as sw
from seewhy.similarity import SIMILARITIES, correlation, hog_correlation, image_ssim, rank_correlation, ssim


def maps(n=4, size=(64, 48), seed=0):
    return torch.randn(n, *size, generator=torch.Generator().manual_seed(seed))


def relative(values):
    return (values.double() / values.double().abs().flatten(1).amax(1).view(-1, 1, 1)).numpy()


@pytest.mark.parametrize("noise", [0.0, 0.3, 3.0])
def test_ssim_is_that_of_scikit_image(noise):
    a = maps()
    b = a + noise * maps(seed=1)
    wanted = [
        structural_similarity(x, y, win_size=5, data_range=2) for x, y in zip(relative(a), relative(b), strict=True)
    ]
    assert ssim(a, b).tolist() == pytest.approx(wanted, abs=1e-6)


def test_image_ssim_is_that_of_scikit_image_on_the_images_as_they_are():
    a = maps(3).sigmoid()[:, None].repeat(1, 3, 1, 1)
    b = (a + 0.1 * torch.randn(a.shape, generator=torch.Generator().manual_seed(2))).clamp(0, 1)
    wanted = [
        structural_similarity(x, y, win_size=5, data_range=1, channel_axis=0)
        for x, y in zip(a.double().numpy(), b.double().numpy(), strict=True)
    ]
    assert image_ssim(a, b).tolist() == pytest.approx(wanted, abs=1e-9)


def test_correlation_is_pearsons():
    a, b = maps(), maps() + maps(seed=1)
    wanted = [stats.pearsonr(x.flatten(), y.flatten()).statistic for x, y in zip(a.double(), b.double(), strict=True)]
    assert correlation(a, b).tolist() == pytest.approx(wanted, abs=1e-12)


def test_hog_correlation_is_that_of_scikit_image():
    a = maps()
    b = a + maps(seed=1)
    features = [
        [hog(x, pixels_per_cell=(16, 16), cells_per_block=(3, 3)) for x in relative(several)] for several in (a, b)
    ]
    wanted = [stats.pearsonr(x, y).statistic for x, y in zip(*features, strict=True)]
    assert hog_correlation(a, b).tolist() == pytest.approx(wanted, abs=1e-6)


def test_rank_correlation_is_scipys_with_ties():
    a, b = maps().round(), maps(seed=1).round()
    wanted = [stats.spearmanr(x.flatten(), y.flatten()).statistic for x, y in zip(a, b, strict=True)]
    assert rank_correlation(a, b).tolist() == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("name", sorted(SIMILARITIES))
def test_a_map_is_like_itself_times_a_hundred_and_a_constant_one_has_no_value(name):
    s, a = SIMILARITIES[name], maps(3)
    assert s.compare(s.prepare(a), s.prepare(100 * a)).tolist() == pytest.approx([1, 1, 1], abs=1e-9)
    a[1] = 2.0
    a[2, 0, 0] = math.nan
    found = s.compare(s.prepare(a), s.prepare(maps(3)))
    assert found.isnan().tolist() == [False, True, True]


def test_the_other_sign_shows_in_all_but_the_absolute_one():
    a = maps(2)
    found = {n: float(s.compare(s.prepare(a), s.prepare(-a))[0]) for n, s in SIMILARITIES.items()}
    assert found["spearman"] == pytest.approx(-1)
    assert found["spearman_absolute"] == pytest.approx(1)
    assert found["ssim"] < 0.5


def test_signals_and_volumes_have_an_ssim_and_narrow_maps_too():
    for size in ((30,), (8, 9, 10), (60, 1)):
        a = maps(2, size)
        assert ssim(a, a).tolist() == pytest.approx([1, 1])


def test_hog_of_small_or_flat_maps_is_refused():
    for size in ((15, 40), (40,)):
        with pytest.raises(sw.UsageError, match="16 x 16"):
            hog_correlation(maps(2, size), maps(2, size))
