import numpy as np
import pytest
import torch
from scipy import ndimage

from seewhy.errors import UsageError
from seewhy.perturb import BASELINES, BLUR_SIGMA, baseline_images, gaussian_blur


def pictures(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [(2, 3, 8, 12), (1, 1, 1, 1), (2, 3, 60, 1), (2, 4, 30), (1, 1, 6, 8, 5)])
@pytest.mark.parametrize("name", BASELINES)
def test_a_named_baseline_has_the_shape_of_the_images_and_stays_within_zero_and_one(name, shape):
    images = pictures(*shape)
    before = images.clone()
    base = baseline_images(images, name)
    assert base.shape == images.shape
    assert base.dtype == images.dtype
    assert base.min() >= 0
    assert base.max() <= 1 + 1e-6
    assert torch.equal(images, before)


def test_black_is_zero_and_white_is_one():
    assert (baseline_images(pictures(2, 3, 4, 5), "black") == 0).all()
    assert (baseline_images(pictures(2, 3, 4, 5), "white") == 1).all()


def test_mean_is_each_images_own_color():
    images = pictures(2, 3, 4, 5)
    base = baseline_images(images, "mean")
    for i in range(2):
        for c in range(3):
            assert torch.allclose(base[i, c], images[i, c].mean())


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_does_not_depend_on_the_other_images(name):
    images = pictures(3, 3, 16, 12)
    together = baseline_images(images, name)
    for i in range(3):
        assert torch.allclose(together[i], baseline_images(images[i : i + 1], name)[0], atol=1e-6)


@pytest.mark.parametrize("sigma", [0.5, 1.5, 3.0])
def test_blur_is_the_gaussian_with_mirrored_borders(sigma):
    images = pictures(2, 3, 32, 41)
    radius = max(1, round(3 * sigma))
    expected = images.double().numpy()
    for axis in (2, 3):
        expected = ndimage.gaussian_filter1d(expected, sigma, axis=axis, mode="mirror", radius=radius)
    assert np.abs(gaussian_blur(images, sigma).numpy() - expected).max() < 1e-5


def test_the_blurred_baseline_has_a_sigma_of_a_tenth_of_the_shorter_side():
    images = pictures(1, 3, 40, 90)
    assert BLUR_SIGMA == 0.1
    assert torch.equal(baseline_images(images, "blur"), gaussian_blur(images, 4.0))


def test_blur_blurs_every_axis_of_a_volume():
    volume = torch.zeros(1, 1, 9, 9, 9)
    volume[0, 0, 4, 4, 4] = 1
    blurred = gaussian_blur(volume, 1.0)
    neighbors = [blurred[0, 0, 3, 4, 4], blurred[0, 0, 4, 3, 4], blurred[0, 0, 4, 4, 3]]
    assert all(0 < v < blurred[0, 0, 4, 4, 4] for v in neighbors)
    assert torch.allclose(neighbors[0], neighbors[1])
    assert torch.allclose(neighbors[0], neighbors[2])


@pytest.mark.parametrize("shape", [(1, 1, 3, 50), (1, 1, 1, 50), (1, 1, 2, 2)])
def test_blur_of_an_axis_shorter_than_the_kernel_keeps_a_constant(shape):
    assert torch.allclose(gaussian_blur(torch.full(shape, 0.3), 2.0), torch.tensor(0.3), atol=1e-6)


def test_one_baseline_tensor_serves_all_images():
    images, own = pictures(2, 3, 4, 5), torch.full((3, 4, 5), 0.25)
    for given in (own, own[None]):
        base = baseline_images(images, given)
        assert base.shape == images.shape
        assert (base == 0.25).all()


def test_one_baseline_tensor_per_image_is_taken_in_order():
    images = pictures(2, 3, 4, 5)
    own = torch.stack([torch.zeros(3, 4, 5), torch.ones(3, 4, 5)])
    assert torch.equal(baseline_images(images, own), own)


def test_a_baseline_of_another_dtype_that_needs_a_gradient_is_converted_and_detached():
    own = torch.full((3, 4, 5), 0.5, dtype=torch.float64, requires_grad=True)
    base = baseline_images(pictures(2, 3, 4, 5), own)
    assert base.dtype == torch.float32
    assert not base.requires_grad


@pytest.mark.parametrize("shape", [(), (3,), (4, 5), (1, 4, 5), (3, 5, 4), (3, 3, 4, 5), (0, 3, 4, 5), (1, 2, 3, 4, 5)])
def test_a_baseline_of_the_wrong_shape_is_a_usage_error_with_both_shapes(shape):
    with pytest.raises(UsageError) as caught:
        baseline_images(pictures(2, 3, 4, 5), torch.zeros(shape))
    assert str(tuple(shape)) in str(caught.value)
    assert "(2, 3, 4, 5)" in str(caught.value)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_baseline_that_is_not_finite_is_a_usage_error(bad):
    own = torch.zeros(3, 4, 5)
    own[0, 0, 0] = bad
    with pytest.raises(UsageError, match="finite"):
        baseline_images(pictures(2, 3, 4, 5), own)


def test_a_misspelled_baseline_is_a_usage_error_with_the_near_name():
    with pytest.raises(UsageError, match="unknown baseline 'blakc': did you mean 'black'"):
        baseline_images(pictures(1, 3, 4, 5), "blakc")


@pytest.mark.parametrize("bad", [0.5, None, True, ["black"], np.zeros((3, 4, 5))], ids=repr)
def test_a_baseline_that_is_neither_name_nor_tensor_is_a_usage_error(bad):
    with pytest.raises(UsageError, match="baseline"):
        baseline_images(pictures(1, 3, 4, 5), bad)
