import pytest
import torch
from twins_cam import captured, finer_cam, layer_cam_fused, per_cell

import seewhy as sw
from nets import signal, tiny_cnn, tiny_residual, tiny_vit, volume


def images(n=3, seed=0, size=32):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def close(ours, wanted, tolerance=1e-5):
    return float((ours - wanted).abs().max()) <= tolerance * float(wanted.abs().max())


# -- LayerCAM of several layers --------------------------------------------------------------------------------------

STAGES = ["stem", "layer1", "layer2"]  # grids 16, 16, 8 of 32 pixels


def alone(net, x, layers, k):
    return [[per_cell(*captured(net, layer, image, lambda out: out[k]), True) for layer in layers] for image in x]


def deep():
    """Five stages whose grids halve, as VGG16's: 32, 16, 8, 4, 2."""
    torch.manual_seed(0)
    stages = [torch.nn.Sequential(torch.nn.Conv2d(3 if i == 0 else 6, 6, 3, 1 + (i > 0), 1)) for i in range(5)]
    head = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(6, 4))
    relu = [torch.nn.ReLU() for _ in stages]
    return torch.nn.Sequential(*[m for pair in zip(stages, relu, strict=True) for m in pair], head).eval()


@pytest.mark.parametrize(
    ("fusion", "shallow"),
    [("paper", [True, True, True, False, False]), ("all", [True] * 5), ("none", [False] * 5)],
)
def test_layers_are_fused_as_the_slow_twin_does_and_the_paper_scales_the_first_three_of_five_stages(fusion, shallow):
    net, x = deep(), images(2)
    layers = ["1", "3", "5", "7", "9"]
    e = sw.explain(net, x, "layer_cam", target=1, layer=layers, fusion=fusion, gamma=1.5)
    assert e.layer == "1"
    assert e.grid == (32, 32)
    for i, maps in enumerate(alone(net, x, layers, 1)):
        assert close(e.raw[i], layer_cam_fused(maps, shallow, 1.5))


def test_fused_maps_lie_in_zero_to_one_and_one_capture_serves_all_layers():
    model, x = sw.wrap(tiny_residual()), images(3)
    e = sw.explain(model, x, "layer_cam", target=1, layer=STAGES)
    assert (model.gradient_rows, model.forward_rows) == (3, 0)
    assert 0 <= float(e.raw.min()) < float(e.raw.max()) <= 1
    assert e.validity["approximations"] == ["fused from layers stem, layer1, layer2"]
    for i in range(3):
        assert torch.allclose(sw.explain(model, x[i : i + 1], "layer_cam", 1, layer=STAGES).raw[0], e.raw[i], atol=1e-5)


def test_the_order_in_which_layers_are_given_does_not_matter_and_one_layer_stays_raw():
    net, x = tiny_residual(), images(2)
    e = sw.explain(net, x, "layer_cam", target=1, layer=STAGES)
    turned = sw.explain(net, x, "layer_cam", target=1, layer=STAGES[::-1])
    assert torch.equal(e.raw, turned.raw)
    single = sw.explain(net, x, "layer_cam", target=1, layer=["layer2"])
    assert torch.equal(single.raw, sw.explain(net, x, "layer_cam", target=1, layer="layer2").raw)
    assert float(single.raw.max()) < 0.1  # score units


def test_torchcams_fusion_is_ours_with_tanh_on_all_layers_where_a_map_has_a_zero():
    torchcam = pytest.importorskip("torchcam.methods")
    net, x = deep(), images(2)
    layers = ["1", "5"]
    with torchcam.LayerCAM(net, layers, input_shape=(3, 32, 32)) as extractor:
        theirs = extractor.fuse_cams(
            extractor(1, net(x))
        )  # subtracts each map's minimum first, which is 0 here or near
    ours = sw.explain(net, x, "layer_cam", target=1, layer=layers, fusion="all").raw
    lowest = max(float(sw.explain(net, x, "layer_cam", target=1, layer=n).raw.flatten(1).amin(1).max()) for n in layers)
    assert lowest >= 0
    assert (ours - theirs.detach()).abs().max() < 0.35
    assert torch.corrcoef(torch.stack([ours.flatten(), theirs.detach().flatten()]))[0, 1] > 0.9


@pytest.mark.parametrize(
    ("build", "shape", "layers"),
    [(signal, (2, 64), ["conv1", "conv2"]), (volume, (1, 16, 16, 16), ["conv1", "conv2"])],
)
def test_layers_of_signals_and_volumes_are_fused_too(build, shape, layers):
    net, x = build(), torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    e = sw.explain(net, x, "layer_cam", target=1, layer=layers)
    assert e.raw.ndim == x.ndim - 1
    assert (e.raw.flatten(1).amax(1) > 0).all()


def test_layers_of_tokens_are_fused_too():
    e = sw.explain(tiny_vit(), images(2), "layer_cam", target=1, layer=["patch", "blocks.0", "blocks.1.norm1"])
    assert e.raw.shape == (2, 8, 8)
    assert torch.isfinite(e.raw).all()


def test_a_layer_whose_map_has_no_positive_cell_adds_nothing():
    net, x = deep(), images(2)
    flipped = sw.target.of(lambda outputs: 0 * outputs[:, 0] - 1e-30 * outputs[:, 1])
    e = sw.explain(net, x, "layer_cam", target=flipped, layer=["7", "9"])
    assert torch.isfinite(e.raw).all()


@pytest.mark.parametrize(
    ("given", "message"),
    [({"fusion": "max"}, "fusion"), ({"gamma": 0}, "gamma"), ({"gamma": "2"}, "gamma"), ({"layer": []}, "no layer")],
)
def test_wrong_parameters_of_layer_cam_are_errors_before_any_row(given, message):
    model = sw.wrap(tiny_cnn())
    with pytest.raises(sw.UsageError, match=message):
        sw.explain(model, images(1), "layer_cam", **given)
    assert (model.forward_rows, model.gradient_rows) == (0, 0)


# -- Finer-CAM -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["paper", "code"])
@pytest.mark.parametrize("references", [1, 3, 9])
def test_finer_cam_equals_its_slow_twin(variant, references):
    net, x = tiny_residual(), images(2)
    e = sw.explain(
        net, x, "finer_cam", target=[1, 4], layer="layer1", gamma=0.6, references=references, variant=variant
    )
    for i, k in enumerate((1, 4)):
        wanted, others, contrast = finer_cam(net, "layer1", x[i], k, 0.6, references, variant)
        assert close(e.raw[i], wanted)
        assert [int(e.evidence[f"reference_{t}"][i]) for t in range(1, 1 + min(references, 4))] == others
        assert float(e.evidence["contrast"][i]) == pytest.approx(contrast, abs=1e-5)


def test_finer_cam_without_strength_is_grad_cam_and_with_one_reference_a_margin():
    model, x = sw.wrap(tiny_cnn()), images(3)
    assert close(
        sw.explain(model, x, "finer_cam", target=1, gamma=0).raw, sw.explain(model, x, "grad_cam", target=1).raw
    )
    e = sw.explain(model, x, "finer_cam", target=1, gamma=1, references=1)
    others = e.evidence["reference_1"].tolist()
    margin = sw.explain(model, x, "grad_cam", target=sw.target.margin([1, 1, 1], others)).raw
    assert close(e.raw, margin)


def test_finer_cam_settles_class_and_references_in_one_row_and_explains_the_class_itself():
    model, x = sw.wrap(tiny_cnn()), images(3)
    e = sw.explain(model, x, "finer_cam")
    assert (model.gradient_rows, model.forward_rows) == (3, 0)
    logits = model.predict(x)
    assert torch.allclose(e.scores, logits.amax(1))
    assert [t["index"] for t in e.targets] == logits.argmax(1).tolist()
    ranked = logits.argsort(1, descending=True)
    assert torch.equal(e.evidence["reference_1"], ranked[:, 1])


def test_a_class_is_never_its_own_reference_also_where_logits_are_equal():
    net = tiny_cnn()
    net.fc.weight.data[3] = net.fc.weight.data[1]
    net.fc.bias.data[3] = net.fc.bias.data[1]
    for k, other in ((1, 3), (3, 1)):
        e = sw.explain(net, images(2), "finer_cam", target=k, references=1)
        assert e.evidence["reference_1"].tolist() == [other] * 2
        assert float(e.raw.abs().max()) < 1e-8  # nothing tells them apart


def test_finer_cam_on_the_probability_compares_probabilities():
    net, x = tiny_cnn(), images(2)
    e = sw.explain(net, x, "finer_cam", target=sw.target.probability(1), references=1)
    other = int(e.evidence["reference_1"][0])
    wanted = sw.explain(net, x, "grad_cam", target=sw.target.of(lambda o: o.softmax(1)[:, 1] - o.softmax(1)[:, other]))
    assert close(e.raw[:1], wanted.raw[:1])


def test_finer_cam_equals_the_target_of_the_authors_code():
    targets = pytest.importorskip("pytorch_grad_cam.utils.model_targets")
    net, x = tiny_residual(), images(1)
    e = sw.explain(net, x, "finer_cam", target=2, layer="layer1", gamma=0.8, variant="code")
    references = [int(e.evidence[f"reference_{t}"]) for t in (1, 2, 3)]
    a, g = captured(net, "layer1", x[0], targets.FinerWeightedTarget(2, references, 0.8))
    assert close(e.raw[0], torch.einsum("k,kij->ij", g.mean((1, 2)), a))


def test_finer_cam_equals_torchcam():
    torchcam = pytest.importorskip("torchcam.methods")
    net, x = tiny_residual(), images(2)
    with torchcam.FinerCAM(net, "layer1", (3, 32, 32), gamma=0.6) as extractor:
        (theirs,) = extractor(2, net(x), normalized=False)
    ours = sw.explain(net, x, "finer_cam", target=2, layer="layer1", gamma=0.6).raw.clamp_min(0)
    assert close(ours, theirs.detach())


@pytest.mark.parametrize(
    ("target", "task"),
    [
        (sw.target.margin(1, 2), "multiclass"),
        (sw.target.of(lambda o: o[:, 0]), "multiclass"),
        (sw.target.output(1), "regression"),
    ],
)
def test_finer_cam_takes_one_class_and_nothing_else(target, task):
    model = sw.wrap(tiny_cnn(), task=task)
    with pytest.raises(sw.UsageError, match=r"grad_cam with sw\.target\.margin"):
        sw.explain(model, images(1), "finer_cam", target=target)
    assert (model.forward_rows, model.gradient_rows) == (0, 0)


def test_finer_cam_needs_several_classes():
    with pytest.raises(sw.UsageError, match="several"):
        sw.explain(sw.wrap(tiny_cnn(classes=1), task="binary"), images(1), "finer_cam")
    with pytest.raises(sw.UsageError, match="one output"):
        sw.explain(sw.wrap(tiny_cnn(classes=1)), images(1), "finer_cam")


@pytest.mark.parametrize("given", [{"gamma": -0.1}, {"gamma": float("nan")}, {"references": 0}, {"references": 1.5}])
def test_wrong_parameters_of_finer_cam_are_errors_before_any_row(given):
    model = sw.wrap(tiny_cnn())
    with pytest.raises(sw.UsageError, match=next(iter(given))):
        sw.explain(model, images(1), "finer_cam", **given)
    assert (model.forward_rows, model.gradient_rows) == (0, 0)
