import sys

import captum.attr
import numpy as np
import pytest
import torch
from functions import explained, model_of, pixels
from sklearn.linear_model import Ridge
from test_perturbation import RegionMean, probability, same, sharp
from twins_perturbation import lime_table, shapley, shown

import seewhy as sw
from nets import images, signal, tiny_cnn, tiny_vit, volume
from seewhy.methods.superpixels import _coalitions, _coin_flips

QUARTERS = torch.arange(32)[:, None] // 16 * 2 + torch.arange(32)[None] // 16
GRID = {"segmentation": "grid", "superpixels": 9}


def own(n):
    """Every pixel of a (1, n) picture a superpixel of its own."""
    return torch.arange(n)[None]


def one_per_part(raw, labels):
    """The value of each superpixel, which must be the same in all its pixels."""
    values = []
    for k in range(int(labels.max()) + 1):
        found = raw[labels == k]
        assert (found == found[0]).all()
        values.append(float(found[0]))
    return torch.tensor(values, dtype=torch.float64)


# -- LIME -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "alpha"), [(0.25, 1.0), (0.1, 1.0), (2.0, 0.01)])
def test_lime_is_the_weighted_ridge_regression_of_scikit_learn(width, alpha):
    net, x, fill = sharp(tiny_cnn), images(2), images(2, seed=4)
    labels = torch.stack([QUARTERS, QUARTERS.T * 5 - 3])
    e = sw.explain(
        sw.wrap(net, batch_size=7), x, "lime", 1, segments=labels, samples=40, kernel_width=width, alpha=alpha,
        baseline=fill, seed=2,
    )  # fmt: skip
    for i, parts in enumerate((QUARTERS, QUARTERS.T)):
        table = lime_table(probability(net, 1), x[i], fill[i], parts, _coin_flips(x[i], 4, 40, 2), width)
        peer = Ridge(alpha=alpha).fit(table[0], table[1], sample_weight=table[2])
        found = one_per_part(e.raw[i], parts)
        assert np.abs(found.numpy() - peer.coef_).max() <= 1e-5 * np.abs(peer.coef_).max()
        assert float(e.evidence["fit"][i]) == pytest.approx(peer.score(*table[:2], sample_weight=table[2]), abs=1e-5)
    assert e.evidence["superpixels"].tolist() == [4, 4]
    assert e.evidence["forward_rows"].tolist() == [41, 41]


def test_lime_of_a_linear_score_is_its_weights_when_nothing_shrinks_them():
    weights = torch.tensor([0.5, -2.0, 0.0, 3.0])
    e = explained(lambda x: x @ weights, pixels(1, 1, 1, 1), "lime", segments=own(4), samples=200, alpha=1e-6)
    assert torch.allclose(e.raw.flatten(), weights, atol=1e-5)
    assert float(e.evidence["fit"]) == pytest.approx(1)
    shrunk = explained(lambda x: x @ weights, pixels(1, 1, 1, 1), "lime", segments=own(4), samples=200).raw.flatten()
    assert 0.8 < float(shrunk[3]) / 3 < 0.99


def test_lime_cannot_fit_what_is_not_a_sum_and_says_so():
    def parity(x):
        return (x > 0.5).float().sum(1) % 2

    e = explained(parity, pixels(1, 1, 1, 1), "lime", segments=own(4), samples=500)
    assert float(e.evidence["fit"]) < 0.2
    assert float(explained(lambda x: 0 * x[:, 0], pixels(1, 1), "lime", segments=own(2)).evidence["fit"]) == 0


def test_lime_is_in_score_units_per_superpixel_whatever_its_size():
    model = sw.wrap(RegionMean(slice(0, 32), slice(0, 4)), task="regression")
    labels = (torch.arange(32) >= 4).long().expand(32, 32)
    e = sw.explain(model, torch.full((1, 3, 32, 32), 0.5), "lime", segments=labels, samples=300, alpha=1e-6)
    assert one_per_part(e.raw[0], labels).tolist() == pytest.approx([0.5, 0], abs=1e-5)


# -- Kernel SHAP --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 4])
def test_kernel_shap_with_all_coalitions_is_the_shapley_value_over_all_orders(count):
    net, x, fill = sharp(tiny_vit), images(2), images(2, seed=8)
    labels = (torch.arange(32 * 32).view(32, 32) * 7919 % 1009) * count // 1009
    e = sw.explain(sw.wrap(net, batch_size=4), x, "kernel_shap", 3, segments=labels, baseline=fill)
    for i in range(2):
        wanted = shapley(probability(net, 3), x[i], fill[i], labels)
        sizes = torch.bincount(labels.flatten())
        assert same(one_per_part(e.raw[i], labels) * sizes, wanted)
    assert e.evidence["exact"].tolist() == [True, True]
    assert e.evidence["coalitions"].tolist() == [2**count - 2] * 2
    assert e.evidence["forward_rows"].tolist() == [2**count] * 2
    assert e.evidence["sampling_error"].tolist() == [0, 0]


def test_kernel_shap_with_all_coalitions_equals_the_shapley_values_of_captum():
    net, x = sharp(tiny_cnn), images(2)
    e = sw.explain(net, x, "kernel_shap", 2, segments=QUARTERS)
    peer = captum.attr.ShapleyValues(lambda x: net(x.double()).softmax(1))
    wanted = peer.attribute(x, target=2, feature_mask=QUARTERS.repeat(1, 3, 1, 1))[:, 0]
    assert same(e.raw * 256, wanted.float())


def test_the_minimum_of_two_is_shared_equally():
    def score(x):
        return torch.minimum(x[:, 0], x[:, 1]) + 2 * x[:, 2]

    e = explained(score, pixels(1, 3, 1), "kernel_shap", segments=own(3))
    assert e.raw.flatten().tolist() == pytest.approx([0.5, 0.5, 2])


@pytest.mark.parametrize("n", [9, 16])
def test_sampled_coalitions_of_an_additive_score_give_its_parts_exactly(n):
    weights = torch.linspace(-1, 2, n)
    x, base = torch.rand(1, 1, 1, n), torch.rand(1, 1, 1, n)
    e = explained(lambda x: x @ weights, x, "kernel_shap", base, segments=own(n), samples=100)
    assert e.evidence["exact"].tolist() == [False]
    assert torch.allclose(e.raw.flatten(), (weights * (x - base)).flatten(), atol=1e-5)


def interaction(x):
    return x[:, 0] * x[:, 1] + x[:, 2] * x[:, 3] * x[:, 4] - torch.relu(x.sum(1) - 5) + x[:, 8]


def test_the_sampling_error_of_kernel_shap_is_the_error_of_the_map():
    x = torch.linspace(0.5, 1, 10).view(1, 1, 1, 10)
    exact = explained(interaction, x, "kernel_shap", segments=own(10), samples=1022)
    assert exact.evidence["exact"].tolist() == [True]
    errors, claimed = [], []
    for seed in range(30):
        e = explained(interaction, x, "kernel_shap", segments=own(10), samples=200, seed=seed)
        errors.append(float((e.raw - exact.raw).abs().sum() / exact.raw.abs().sum()))
        claimed.append(float(e.evidence["sampling_error"]))
    assert 0.8 < np.mean(errors) / np.mean(claimed) < 1.25
    assert abs(float(np.mean(errors))) > 0.005


def test_the_sampling_error_of_lime_is_the_error_of_the_map():
    x = torch.linspace(0.5, 1, 10).view(1, 1, 1, 10)
    truth = explained(interaction, x, "lime", segments=own(10), samples=20_000, alpha=1e-3, seed=99).raw
    errors, claimed = [], []
    for seed in range(20):
        e = explained(interaction, x, "lime", segments=own(10), samples=300, alpha=1e-3, seed=seed)
        errors.append(float((e.raw - truth).abs().sum() / truth.abs().sum()))
        claimed.append(float(e.evidence["sampling_error"]))
    assert 0.8 < np.mean(errors) / np.mean(claimed) < 1.25


@pytest.mark.parametrize("samples", [1000, 61])
@pytest.mark.parametrize("kind", [tiny_cnn, tiny_vit])
def test_the_map_of_kernel_shap_sums_to_the_difference(kind, samples):
    net, x = sharp(kind), images(2)
    e = sw.explain(sw.wrap(net), x, "kernel_shap", target=2, samples=samples, baseline="black", **GRID)
    with torch.no_grad():
        change = (net(x.double()).softmax(1)[:, 2] - net(torch.zeros_like(x).double()).softmax(1)[:, 2]).float()
    assert torch.allclose(e.evidence["score_difference"], change, atol=1e-6)
    assert torch.allclose(e.raw.flatten(1).sum(1), change, atol=1e-6)
    gap = (e.raw.flatten(1).sum(1) - e.evidence["score_difference"]).abs()
    assert torch.allclose(e.evidence["completeness_gap"], gap, atol=1e-7)


def test_pairs_are_complements_and_their_sizes_follow_the_shapley_kernel():
    n, pairs = 7, 20_000
    kept, weights = _coalitions(images(1)[0], n, 60, 0)
    assert weights is None
    kept, _ = _coalitions(images(1)[0], 17, 2 * pairs, 0)
    assert torch.equal(kept[::2], ~kept[1::2])
    sizes = torch.bincount(kept[::2].sum(1), minlength=18).double()
    wanted = torch.tensor([0.0, *(1 / (s * (17 - s)) for s in range(1, 17)), 0.0], dtype=torch.float64)
    wanted *= pairs / wanted.sum()
    assert sizes[0] == sizes[17] == 0
    assert ((sizes - wanted).abs() <= 4 * wanted.sqrt()).all()
    assert (kept[::2].double().mean(0) - 0.5).abs().max() < 0.02


def test_one_superpixel_has_the_whole_difference():
    e = explained(lambda x: x.sum(1), pixels(1, 2), "kernel_shap", segments=torch.zeros(1, 2, dtype=torch.int32))
    assert e.evidence["score_difference"].tolist() == [3]
    assert e.evidence["forward_rows"].tolist() == [2]
    assert e.status == [sw.Status.CONSTANT]


def test_too_few_coalitions_for_the_superpixels_are_refused_before_any_row():
    model = sw.wrap(tiny_cnn())
    with pytest.raises(sw.RefusalError, match="20 samples cannot tell 25 superpixels apart"):
        sw.explain(model, images(1), "kernel_shap", samples=20, segmentation="grid", superpixels=25)
    assert model.forward_rows == 0


# -- both -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["lime", "kernel_shap"])
def test_images_with_different_numbers_of_superpixels_share_a_batch(method):
    net, x = sharp(tiny_cnn), images(3)
    labels = torch.stack([QUARTERS, QUARTERS // 2, torch.arange(32).expand(32, 32) // 3])
    model, fill = sw.wrap(net, batch_size=8), images(3, seed=6)
    together = sw.explain(model, x, method, target=1, segments=labels, samples=100, baseline=fill)
    assert together.evidence["superpixels"].tolist() == [4, 2, 11]
    for i in range(3):
        alone = sw.explain(model, x[i : i + 1], method, target=1, segments=labels[i], samples=100, baseline=fill[i])
        assert same(together.raw[i], alone.raw[0])
        assert together.evidence["forward_rows"][i] == alone.evidence["forward_rows"][0]


@pytest.mark.parametrize("method", ["lime", "kernel_shap"])
def test_the_targets_of_images_that_run_apart_are_their_own(method):
    net, x = sharp(tiny_cnn), images(3)
    labels = torch.stack([QUARTERS, QUARTERS // 2, QUARTERS])
    together = sw.explain(net, x, method, target=[4, 0, 2], segments=labels, samples=100)
    for i, k in enumerate((4, 0, 2)):
        alone = sw.explain(net, x[i : i + 1], method, target=k, segments=labels[i], samples=100)
        assert same(together.raw[i], alone.raw[0])


@pytest.mark.parametrize("method", ["lime", "kernel_shap"])
@pytest.mark.parametrize("segmentation", ["slic", "quickshift", "grid"])
def test_superpixels_are_found_and_every_pixel_has_one(method, segmentation):
    x = images(2, size=(48, 64))
    e = sw.explain(tiny_cnn(), x, method, target=1, segmentation=segmentation, superpixels=20, samples=300)
    assert e.ok == [True, True]
    for i, n in enumerate(e.evidence["superpixels"].tolist()):
        assert 2 <= len(e.raw[i].unique()) <= n
    if segmentation == "grid":
        assert e.evidence["superpixels"].tolist() == [20, 20]


@pytest.mark.parametrize("method", ["lime", "kernel_shap"])
def test_one_and_three_axes_are_cut_into_boxes(method):
    for net, x in ((signal(), images(2, 2, (40,))), (volume(), images(2, 1, (8, 10, 12)))):
        e = sw.explain(net, x, method, target=1, segmentation="grid", superpixels=8, samples=300)
        assert e.raw.shape == (2, *x.shape[2:])
        assert e.evidence["superpixels"].tolist() == [8, 8]
    e = sw.explain(volume(), images(1, 1, (8, 10, 12)), method, target=1, superpixels=8, samples=300)
    assert e.ok == [True]
    for segmentation in ("slic", "quickshift"):
        with pytest.raises(sw.UsageError, match="grid"):
            sw.explain(signal(), images(1, 2, (40,)), method, segmentation=segmentation)


def test_grayscale_and_unbounded_pictures_are_segmented_too():
    for x in (images(1, 1), images(1) * 20 - 10):
        for segmentation in ("slic", "quickshift"):
            e = sw.explain(model_of(lambda x: x.mean(1)), x, "lime", segmentation=segmentation, samples=50)
            assert int(e.evidence["superpixels"]) > (8 if segmentation == "slic" else 0)


def test_slic_keeps_about_the_number_that_is_asked_for_on_texture_too():
    x = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    e = sw.explain(tiny_cnn(), x, "lime", samples=5, superpixels=36)
    assert 25 <= int(e.evidence["superpixels"]) <= 49


def test_what_is_hidden_is_the_superpixel_and_nothing_else():
    net, x, fill = tiny_cnn(), images(1), torch.zeros(3, 32, 32)
    seen = []
    net.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].clone()))
    sw.explain(sw.wrap(net), x, "kernel_shap", target=1, segments=QUARTERS, samples=14, baseline=fill)
    pictures = torch.cat(seen)
    for code in range(16):
        kept = [bool(code >> k & 1) for k in range(4)]
        wanted = shown(x[0], fill, QUARTERS, kept)
        assert any(torch.allclose(picture, wanted, atol=1e-6) for picture in pictures)


@pytest.mark.parametrize("method", ["lime", "kernel_shap"])
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"samples": 0}, "samples"),
        ({"superpixels": 0}, "superpixels"),
        ({"segmentation": "slik"}, "slic"),
        ({"segments": torch.zeros(32, 32)}, "whole numbers"),
        ({"segments": [[1, 2]]}, "whole numbers"),
        ({"segments": torch.zeros(31, 32, dtype=torch.long)}, "shape"),
        ({"segments": torch.zeros(2, 32, 32, dtype=torch.long)}, "shape"),
        ({"baseline": "grey"}, "normalization_mean"),
    ],
)
def test_settings_that_cannot_be_meant_are_errors_before_any_row(method, bad, message):
    model = sw.wrap(tiny_cnn())
    with pytest.raises(sw.UsageError, match=message):
        sw.explain(model, images(1), method, **bad)
    assert model.forward_rows == 0


@pytest.mark.parametrize("bad", [{"kernel_width": 0}, {"alpha": 0}, {"alpha": float("nan")}])
def test_lime_needs_a_kernel_and_a_penalty(bad):
    with pytest.raises(sw.UsageError, match=next(iter(bad))):
        sw.explain(tiny_cnn(), images(1), "lime", **bad)


def test_without_scikit_image_the_install_line_is_shown(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.segmentation", None)
    model = sw.wrap(tiny_cnn())
    with pytest.raises(sw.MissingExtraError, match=r"seewhy\[superpixels\]"):
        sw.explain(model, images(1), "lime", samples=10)
    assert model.forward_rows == 0
    assert sw.explain(model, images(1), "lime", samples=10, segments=QUARTERS).ok == [True]
