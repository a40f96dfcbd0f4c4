import pytest
import torch
from torch import nn
from twins_cam import ablation_cam, captured, eigen_cam, score_cam

import seewhy as sw
from nets import MEAN, STD, channels_last, signal, tiny_cnn, tiny_residual, tiny_vit, volume


def images(n=3, seed=0, size=32):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def close(ours, wanted, tolerance=1e-5):
    return float((ours - wanted).abs().max()) <= tolerance * float(wanted.abs().max())


FORWARD = ("eigen_cam", "score_cam", "ablation_cam")


class Flat(nn.Module):
    """Every layer has the image's own size, so that no peer resizes anything; the head is not linear."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.features = nn.Sequential(nn.Conv2d(3, 7, 3, 1, 1), nn.ReLU())
        self.features[0].bias.data += 0.4  # no dead channel
        self.head = nn.Sequential(nn.AdaptiveMaxPool2d(2), nn.Flatten(), nn.Linear(28, 10), nn.ReLU(), nn.Linear(10, 4))

    def forward(self, x):
        return self.head(self.features(x))


def picture(maps):
    """What pytorch-grad-cam returns: the positive part, min-max of each image."""
    positive = maps.clamp_min(0)
    positive = positive - positive.amin((1, 2), keepdim=True)
    return positive / positive.amax((1, 2), keepdim=True)


@pytest.mark.parametrize("method", FORWARD)
@pytest.mark.parametrize(
    ("build", "shape"),
    [(channels_last, (3, 32, 32)), (tiny_vit, (3, 32, 32)), (signal, (2, 64)), (volume, (1, 8, 8, 8))],
    ids=["channels last", "tokens", "signal", "volume"],
)
def test_a_cam_without_gradients_works_on_every_form_each_image_alone(method, build, shape):
    x = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0))
    model = sw.wrap(build(), batch_size=5) if len(shape) == 3 and shape[0] == 3 else build()
    together = sw.explain(model, x, method)
    assert together.raw.ndim == x.ndim - 1
    for i in range(3):
        single = sw.explain(model, x[i : i + 1], method)
        assert close(together.raw[i], single.raw[0])
        assert together.evidence["forward_rows"][i] == single.evidence["forward_rows"][0]


# -- Eigen-CAM -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize(("build", "layer"), [(tiny_cnn, "relu2"), (tiny_residual, "layer1"), (tiny_cnn, "bn1")])
def test_eigen_cam_equals_its_slow_twin(build, layer, centered):
    net, x = build(), images(2)
    e = sw.explain(net, x, "eigen_cam", layer=layer, centered=centered)
    for i in range(2):
        a, _ = captured(net, layer, x[i], lambda out: out[0])
        wanted = eigen_cam(a, centered).float()
        wanted = wanted if float((wanted * e.raw[i]).sum()) > 0 else -wanted
        assert close(e.raw[i], wanted, 1e-4)


def test_the_sign_of_eigen_cam_is_fixed():
    x = images(3)
    for net in (tiny_cnn(), tiny_residual(), tiny_vit()):
        for seed in (0, 1):
            e = sw.explain(net, images(3, seed), "eigen_cam")
            assert (e.raw.sum((1, 2)) >= 0).all()
            centered = sw.explain(net, images(3, seed), "eigen_cam", centered=True).raw.flatten(1)
            assert (centered.gather(1, centered.abs().argmax(1, keepdim=True)) > 0).all()
            assert torch.allclose(centered.sum(1), torch.zeros(3), atol=1e-3 * float(centered.abs().max()) * 64)
    e = sw.explain(tiny_cnn(), x, "eigen_cam", layer="relu2")
    assert (e.raw >= 0).all()  # activations >= 0: the first direction has one sign (Perron and Frobenius)


def test_eigen_cam_of_a_rank_one_layer_is_that_pattern_and_its_share_is_one():
    pattern, weights = torch.rand(1, 1, 4, 4), torch.tensor([1.0, 2.0, 2.0])

    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Identity()

        def forward(self, x):
            return self.layer(x).flatten(1) @ torch.ones(48, 2)

    e = sw.explain(Fixed(), pattern * weights.view(1, 3, 1, 1), "eigen_cam", layer="layer")
    assert torch.allclose(e.raw[0], 3 * pattern[0, 0], atol=1e-5)
    assert float(e.evidence["first_share"]) == pytest.approx(1)


def test_eigen_cam_ignores_the_class_says_so_and_spends_one_forward_row():
    model, x = sw.wrap(tiny_cnn()), images(2)
    with pytest.raises(sw.UsageError, match="same map for every class"):
        sw.explain(model, x, "eigen_cam", target=1)
    one, two = (sw.explain(model, x, "eigen_cam", target=k, ignore_target=True) for k in (0, 4))
    assert torch.equal(one.raw, two.raw)
    assert one.validity["target_used"] is False
    assert "class-agnostic" in one.validity["warning"]
    assert (model.forward_rows, model.gradient_rows) == (4, 0)


def test_eigen_cam_equals_pytorch_grad_cam_where_it_is_centered():
    svd = pytest.importorskip("pytorch_grad_cam.utils.svd_on_activations")
    net, x = tiny_residual(), images(2)
    a = torch.stack([captured(net, "layer1", image, lambda out: out[0])[0] for image in x])
    theirs = torch.from_numpy(svd.get_2d_projection(a.numpy()))
    ours = sw.explain(net, x, "eigen_cam", layer="layer1", centered=True).raw
    for mine, other in zip(ours, theirs, strict=True):
        assert close(mine, other * torch.sign((mine * other).sum()))
    plain = sw.explain(net, x, "eigen_cam", layer="layer1").raw
    assert torch.corrcoef(torch.stack([plain[0].flatten(), ours[0].flatten()]))[0, 1].abs() < 0.99


def test_eigen_cam_of_a_layer_without_activation_is_constant_and_of_nan_not_finite():
    net = tiny_cnn()
    net.bn2.bias.data -= 100
    assert sw.explain(net, images(2), "eigen_cam", layer="relu2").status == [sw.Status.CONSTANT] * 2
    broken = tiny_cnn()
    broken.conv1.weight.data[0] = float("nan")
    assert sw.explain(broken, images(2), "eigen_cam", layer="bn1").status == [sw.Status.NON_FINITE] * 2


# -- Score-CAM -------------------------------------------------------------------------------------------------------

SCORE_WEIGHTS = ("class_softmax", "increase", "channel_softmax")
ROUNDING = {"class_softmax": 1e-5, "increase": 1e-3, "channel_softmax": 1e-5}  # probabilities here differ by 1e-3


@pytest.mark.parametrize("weights", SCORE_WEIGHTS)
@pytest.mark.parametrize("batch_size", [1, 4, 50])
def test_score_cam_equals_its_slow_twin_in_any_batch(weights, batch_size):
    net, x = tiny_residual(), images(2)
    model = sw.wrap(net, batch_size=batch_size)
    e = sw.explain(model, x, "score_cam", target=[2, 0], weights=weights, baseline="mean")
    for i, k in enumerate((2, 0)):
        fill = x[i].mean((1, 2), keepdim=True).expand_as(x[i])
        assert close(e.raw[i], score_cam(net, "layer2", x[i], k, weights, fill), ROUNDING[weights])


def test_the_default_baseline_of_score_cam_is_zero_after_normalization():
    net, x = tiny_cnn(), images(2)
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    normalized = nn.Sequential()
    normalized.forward = lambda z: net((z - mean) / std)
    normalized.add_module("net", net)
    e = sw.explain(sw.wrap(net, mean=MEAN, std=STD), x, "score_cam", target=1)
    assert close(e.raw[0], score_cam(normalized, "net.relu2", x[0], 1, "class_softmax", mean.expand_as(x[0])))
    own = sw.explain(net, (x - mean) / std, "score_cam", target=sw.target.probability(1))
    assert close(own.raw, e.raw)


def test_score_cam_on_regions_knows_its_answer():
    # f = the sum of the picture over a region, channels are indicators of quarters: C_k is their overlap (formulas 1.7)
    quarters = torch.zeros(4, 8, 8)
    for k in range(4):
        quarters[k, 4 * (k // 2) : 4 * (k // 2) + 4, 4 * (k % 2) : 4 * (k % 2) + 4] = 1

    class Regions(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Identity()

        def forward(self, x):
            quarter = self.layer(quarters.expand(len(x), -1, -1, -1) + 0 * x[:, :1])
            region = x[:, 0, 2:8, 4:8].flatten(1).sum(1, keepdim=True)  # 8 cells of quarter 1, 16 of quarter 3
            return torch.cat([region, 0 * region], 1) + 0 * quarter.sum()

    net = Regions()
    for weights, wanted in (("increase", [0, 8, 0, 16]), ("class_softmax", [0, 8, 0, 16])):
        e = sw.explain(
            net,
            torch.ones(1, 3, 8, 8),
            "score_cam",
            target=sw.target.of(lambda o: o[:, 0]),
            layer="layer",
            weights=weights,
        )
        assert torch.equal(e.raw[0], torch.einsum("k,kij->ij", torch.tensor(wanted).float(), quarters))
    e = sw.explain(net, torch.ones(1, 3, 8, 8), "score_cam", target=0, layer="layer", weights="channel_softmax")
    softmax = torch.tensor([0.0, 8.0, 0.0, 16.0]).softmax(0)
    assert torch.allclose(e.raw[0], torch.einsum("k,kij->ij", softmax, quarters))


def test_constant_channels_are_skipped_get_no_weight_and_cost_no_row():
    net, x = tiny_cnn(), images(3)
    net.bn2.bias.data[:4] -= 100  # dead
    net.bn2.weight.data[4], net.bn2.bias.data[4] = 0, 0.7  # constant, not zero
    for weights, extra in (("class_softmax", 1), ("increase", 2), ("channel_softmax", 1)):
        model = sw.wrap(net, batch_size=4)
        e = sw.explain(model, x, "score_cam", target=1, weights=weights)
        live = e.evidence["live_channels"]
        assert (live <= 7).all()
        assert torch.equal(e.evidence["forward_rows"], live + extra)
        assert model.forward_rows == int((live + extra).sum())
        assert close(e.raw[0], score_cam(net, "relu2", x[0], 1, weights, torch.zeros(3, 32, 32)), ROUNDING[weights])


@pytest.mark.parametrize("weights", SCORE_WEIGHTS)
def test_a_layer_of_constant_channels_only_gives_no_map_and_no_nan(weights):
    net = tiny_cnn()
    net.bn2.bias.data -= 100
    e = sw.explain(net, images(2), "score_cam", layer="relu2", weights=weights)
    assert e.status == [sw.Status.CONSTANT] * 2
    assert torch.equal(e.raw, torch.zeros(2, 8, 8))


def test_the_baseline_cancels_under_channel_softmax_of_unmasked_weights_only():
    net, x = tiny_cnn(), images(1)
    raw = {w: sw.explain(net, x, "score_cam", target=1, weights=w).raw for w in SCORE_WEIGHTS}
    empty = net(torch.zeros(1, 3, 32, 32)).softmax(1)[0, 1].detach()
    a, _ = captured(net, "relu2", x[0], lambda out: out[1])
    live = a.flatten(1).amax(1) > a.flatten(1).amin(1)
    assert close(raw["class_softmax"] - raw["increase"], (empty * a[live].sum(0))[None])


def test_score_cam_explains_the_probability_unless_another_scale_is_asked():
    model, x = sw.wrap(tiny_cnn()), images(2)
    e = sw.explain(model, x, "score_cam", target=1)
    assert torch.allclose(e.scores, model.predict(x).softmax(1)[:, 1])
    logit = sw.explain(model, x, "score_cam", target=sw.target.logit(1))
    assert torch.allclose(logit.scores, model.predict(x)[:, 1])
    assert not close(logit.raw, e.raw, 0.1)


def test_score_cam_equals_torchcam_and_pytorch_grad_cam_where_nothing_is_resized():
    net, x = Flat().eval(), images(2, size=8)
    ours = sw.explain(net, x, "score_cam", target=1, layer="features", weights="channel_softmax").raw
    torchcam = pytest.importorskip("torchcam.methods")
    with torchcam.ScoreCAM(net, "features", input_shape=(3, 8, 8)) as extractor:
        net(x)
        (theirs,) = extractor(1, normalized=False)
    assert close(ours.clamp_min(0), theirs)


def test_where_a_layer_is_resized_torchcam_stretches_before_and_we_after_as_the_authors_do():
    torchcam = pytest.importorskip("torchcam.methods")
    net, x = tiny_residual(), images(1)
    ours = sw.explain(net, x, "score_cam", target=1, weights="channel_softmax").raw
    with torchcam.ScoreCAM(net, "layer2", input_shape=(3, 32, 32)) as extractor:
        net(x)
        (theirs,) = extractor(1, normalized=False)
    difference = float((ours.clamp_min(0) - theirs).abs().max() / theirs.abs().max())
    assert difference > 1e-4


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"weights": "softmax"}, sw.UsageError),
        ({"baseline": "blak"}, sw.UsageError),
        ({"baseline": torch.zeros(3, 5, 5)}, sw.UsageError),
        ({"baseline": "black"}, sw.RefusalError),
    ],
)
def test_wrong_parameters_of_score_cam_are_errors_before_any_row(given, error):
    net, seen = tiny_cnn(), []
    net.fc.register_forward_hook(lambda *_: seen.append(1))
    with pytest.raises(error):
        sw.explain(net, images(1), "score_cam", **given)
    assert not seen


# -- Ablation-CAM ----------------------------------------------------------------------------------------------------

ABLATION_WEIGHTS = ("drop", "relative", "slope")


@pytest.mark.parametrize("weights", ABLATION_WEIGHTS)
@pytest.mark.parametrize(("build", "layer"), [(tiny_residual, "layer1"), (tiny_cnn, "bn1")])
def test_ablation_cam_equals_its_slow_twin(build, layer, weights):
    net, x = build(), images(2)
    e = sw.explain(sw.wrap(net, batch_size=3), x, "ablation_cam", target=[2, 0], layer=layer, weights=weights)
    for i, k in enumerate((2, 0)):
        assert close(e.raw[i], ablation_cam(net, layer, x[i], k, weights), 1e-4)


def test_on_pooling_and_linear_ablation_weighs_each_channel_by_what_it_adds():
    net, x = tiny_cnn(), images(2)
    with torch.no_grad():
        a = net.features(x)
    fall = net.fc.weight[1].detach() * a.mean((2, 3))
    e = sw.explain(net, x, "ablation_cam", target=1)
    assert close(e.raw, torch.einsum("nk,nkij->nij", fall, a), 1e-4)


def test_dead_channels_cost_no_row():
    net, x = tiny_cnn(), images(3)
    net.bn2.bias.data[:4] -= 100
    model = sw.wrap(net)
    e = sw.explain(model, x, "ablation_cam", target=1)
    assert (e.evidence["live_channels"] <= 8).all()
    assert model.forward_rows == int(e.evidence["forward_rows"].sum()) == int((e.evidence["live_channels"] + 1).sum())
    assert model.gradient_rows == 0


def test_a_score_below_zero_turns_the_papers_map_upside_down_and_says_so_and_ours_does_not():
    net, x = tiny_cnn(), images(2)
    net.fc.bias.data[1] -= 10
    drop, relative = (sw.explain(net, x, "ablation_cam", target=1, weights=w) for w in ("drop", "relative"))
    assert close(relative.raw * drop.scores.view(-1, 1, 1), drop.raw)
    assert (drop.scores < 0).all()
    assert any("opposite sign" in text for text in relative.validity["approximations"])
    assert drop.validity["approximations"] == []


def test_a_score_of_exactly_zero_gives_no_nan():
    net = tiny_cnn()
    zero = sw.target.of(lambda outputs: 0 * outputs[:, 0])
    e = sw.explain(net, images(1), "ablation_cam", target=zero, layer="relu2", weights="relative")
    assert e.status == [sw.Status.CONSTANT]


def test_ablation_cam_equals_pytorch_grad_cam_after_a_relu():
    peer = pytest.importorskip("pytorch_grad_cam")
    targets = pytest.importorskip("pytorch_grad_cam.utils.model_targets")
    net, x = Flat().eval(), images(1, size=8)
    net.head[-1].bias.data[1] += 5
    ours = sw.explain(net, x, "ablation_cam", target=1, layer="features", weights="relative").raw
    theirs = peer.AblationCAM(net, [net.features])(x, [targets.ClassifierOutputTarget(1)])
    assert (picture(ours) - torch.from_numpy(theirs)).abs().max() < 1e-4


def test_ablation_leaves_the_other_channels_and_the_networks_own_tensor_alone():
    net, x = tiny_cnn(), images(1)
    seen = []
    net.pool.register_forward_hook(lambda m, i, o: seen.append(i[0].clone()))
    sw.explain(sw.wrap(net, batch_size=20), x, "ablation_cam", target=1, layer="relu2")
    clean, without = seen[-2], seen[-1]
    live = (clean[0].flatten(1).amax(1) > 0).nonzero().flatten()
    assert len(without) == len(live)
    for row, channel in zip(without, live, strict=True):
        wanted = clean[0].clone()
        wanted[channel] = 0
        assert torch.allclose(row, wanted, atol=1e-6)


def test_unknown_weights_are_an_error_before_any_row():
    model = sw.wrap(tiny_cnn())
    with pytest.raises(sw.UsageError, match="relative"):
        sw.explain(model, images(1), "ablation_cam", weights="relativ")
    assert (model.forward_rows, model.gradient_rows) == (0, 0)
