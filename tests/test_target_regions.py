"""Segmentation and depth: a region or a class where it is predicted, and what is not said is answered with the recipe."""

import pytest
import torch

import seewhy as sw
from nets import CLASSES, images, tiny_unet
from seewhy.registry import METHODS
from small import REPRESENTATIVES, SMALL
from task_nets import segmenter

sw.methods()
ALL = [name for name in REPRESENTATIVES if name in METHODS and "attention" not in name]


def wrapped(net=None, **given):
    return sw.wrap(segmenter() if net is None else net, **{"size": 32, "task": "segmentation", **given})


def explain(model, x, method="gradient", target=None, **given):
    return sw.explain(model, x, method, target, **{**SMALL.get(method, {}), **given})


def rare():
    """Class 2 is predicted where it is bright: somewhere in the second image, nowhere in the others nor in noise."""
    net = segmenter()
    net.conv1.weight.data[0], net.conv1.bias.data[0] = 1 / 27, 0.0  # the mean brightness
    net.conv2.weight.data *= 0.1
    net.conv2.weight.data[2], net.conv2.bias.data[2] = 0.0, -16.0
    net.conv2.weight.data[2, 0, 1, 1] = 20.0
    x = images(3) * 0.2
    x[1] = 1 - x[1]
    x[1, :, :16] *= 0.3
    assert (net(x).argmax(1) == 2).flatten(1).any(1).tolist() == [False, True, False]
    return net, x


@pytest.mark.parametrize("method", ALL)
def test_an_image_in_which_the_class_is_nowhere_predicted_has_no_map_and_the_batch_goes_on(method):
    net, x = rare()
    model = wrapped(net, batch_size=2)
    e = explain(model, x, method, sw.target.region(None, 2))
    assert [s == "no_detection" for s in map(str, e.status)] == [True, False, True]
    assert not e.raw[0].any()
    assert e.scores[[0, 2]].tolist() == [0, 0]
    assert e.target_text[0] == "sum of class 2 where it is predicted (nowhere)"
    assert e.target_text[1] == "sum of class 2 where it is predicted"
    alone = explain(model, x[1:2], method, sw.target.region(None, 2))
    assert alone.layer == e.layer
    assert torch.allclose(e.raw[1], alone.raw[0], atol=1e-5 * float(alone.raw.abs().max()))


@pytest.mark.parametrize("method", ["gradient", "grad_cam", "occlusion"])
def test_a_class_that_is_predicted_in_no_image_of_the_call_is_a_result(method):
    net, x = rare()
    e = explain(wrapped(net), x[:1], method, sw.target.region(None, 2))
    assert e.status == [sw.Status.NO_DETECTION]


@pytest.mark.parametrize("method", ["grad_cam", "layer_cam"])
def test_layers_are_found_also_where_noise_shows_nothing_of_the_class(method):
    net, x = rare()
    model = wrapped(net)
    e = explain(model, x[1:2], method, sw.target.region(None, 2))
    assert e.layer == explain(model, x[1:2], method, sw.target.region(torch.ones(8, 8), 2)).layer
    assert e.validity["approximations"] == []
    mask = (net(x[1:2]).argmax(1) == 2)[0]
    given = explain(wrapped(net), x[1:2], method, sw.target.region(mask, 2), layer=e.layer)
    assert torch.allclose(given.raw, e.raw, atol=1e-6)


def test_a_network_that_gives_nan_has_not_predicted_nothing():
    net, x = rare()
    net.conv2.bias.data[:] = torch.nan
    e = explain(wrapped(net), x[:1], "gradient", sw.target.region(None, 2))
    assert e.status == [sw.Status.NON_FINITE]


def test_layers_of_a_segmentation_network_are_listed():
    assert [layer.name for layer in wrapped().layers() if layer.trunk] == ["conv1", "conv2"]


NAMES = ["road", "car", "sky", "tree"]


@pytest.mark.parametrize("given", [2, "sky", "2", [2, 2], sw.target.probability(2), sw.target.output(2)], ids=str)
def test_a_class_alone_shows_the_recipe_with_that_class(given):
    model = wrapped(labels=NAMES)
    with pytest.raises(sw.UsageError, match=r"sw\.target\.region\(mask, k\)") as error:
        explain(model, images(2), "gradient", given)
    assert isinstance(given, list) or "sw.target.region(None, 2)" in str(error.value)
    assert (model.forward_rows, model.gradient_rows) == (0, 0)


def test_no_target_shows_the_recipe_and_what_is_predicted_in_the_image():
    model, x = wrapped(labels=NAMES), images(2)
    shares = torch.bincount(segmenter()(x[:1]).argmax(1).flatten(), minlength=4) / 64
    best = int(shares.argmax())
    with pytest.raises(sw.UsageError, match=r"sw\.target\.region\(None, k\)") as error:
        explain(model, x)
    assert f"Predicted in image 0: {best} {NAMES[best]} ({shares[best]:.0%})" in str(error.value)
    share = float((segmenter(classes=1)(x[:1]) > 0).float().mean())
    with pytest.raises(sw.UsageError, match=f"positive in {share:.0%}"):
        explain(wrapped(segmenter(classes=1)), x)


def test_words_ask_for_a_region_where_only_words_can_be_written():
    model, x = wrapped(labels=NAMES), images(2)
    k = int(segmenter()(x).argmax(1).flatten().mode().values)
    wanted = explain(model, x, "gradient", sw.target.region(None, k))
    assert torch.equal(explain(model, x, "gradient", f"region {NAMES[k]}").raw, wanted.raw)
    assert wanted.target_text[0] == f"sum of {k} {NAMES[k]} where it is predicted"
    with pytest.raises(sw.UsageError, match="did you mean 'road'"):
        explain(model, x, "gradient", "region raod")


def test_the_region_stays_that_of_the_clean_image_while_parts_are_hidden():
    model, x = wrapped(), images(1)
    k = int(segmenter()(x).argmax(1).flatten().mode().values)
    mask = (segmenter()(x).argmax(1) == k)[0]
    clean = explain(model, x, "occlusion", sw.target.region(None, k), patch=16, stride=16)
    fixed = explain(model, x, "occlusion", sw.target.region(mask, k), patch=16, stride=16)
    assert torch.equal(clean.raw, fixed.raw)
    hidden = x.clone()
    hidden[..., :16, :16] = torch.tensor(0.5)
    later = (segmenter()(hidden).argmax(1) == k)[0]
    assert not torch.equal(later, mask)  # a region that moved with the damage would be another question


@pytest.mark.parametrize(("classes", "task"), [(1, "segmentation"), (1, "regression")], ids=["one logit", "depth"])
def test_a_one_channel_output_takes_a_region_without_a_class(classes, task):
    net, x = segmenter(classes=classes), images(2)
    model, mask = wrapped(net, task=task), torch.zeros(8, 8)
    mask[2:5, 3:] = 1
    e = explain(model, x, "gradient", sw.target.region(mask))
    assert torch.allclose(e.scores, (net(x).detach()[:, 0] * mask).sum((1, 2)), rtol=1e-4)
    assert e.target_text == ["sum of the output over a region"] * 2
    assert e.ok == [True, True]
    if task == "segmentation":
        where = net(x).detach()[:, 0]
        e = explain(model, x, "gradient", sw.target.region(None))
        assert torch.allclose(e.scores, where.clamp_min(0).sum((1, 2)), rtol=1e-4)
    else:
        with pytest.raises(sw.UsageError, match=r'region\(None\).*task="segmentation".*give a mask'):
            explain(model, x, "gradient", sw.target.region(None))


def test_several_channels_want_to_know_which():
    with pytest.raises(sw.UsageError, match=r"which of the 4 classes\? sw\.target\.region\(mask, k\)"):
        explain(wrapped(), images(1), "gradient", sw.target.region(torch.ones(8, 8)))


@pytest.mark.parametrize("method", ["gradient", "grad_cam", "rise"])
def test_a_mask_of_the_inputs_size_names_both_sizes_before_any_work(method):
    model = wrapped()
    with pytest.raises(sw.UsageError, match=r"region mask is \(32, 32\).*\(1, 4, 8, 8\).*interpolate"):
        explain(model, images(1), method, sw.target.region(torch.ones(32, 32), 1))
    assert (model.forward_rows, model.gradient_rows) == (0, 0)
    with pytest.raises(sw.UsageError, match=r"region mask is \(8, 8\).*32, 32"):
        explain(wrapped(tiny_unet()), images(1), method, sw.target.region(torch.ones(8, 8), 1))


def test_a_dict_with_out_and_aux_is_read_at_out():
    x, mask = images(1), torch.ones(32, 32)
    e = explain(wrapped(segmenter(form="dict")), x, "grad_cam", sw.target.region(mask, 1))
    assert torch.allclose(e.scores, segmenter(form="dict")(x)["out"][:, 1].sum((1, 2)).detach(), rtol=1e-4)


def test_a_class_of_a_network_that_returns_a_map_says_what_it_is():
    with pytest.raises(sw.UsageError, match=r'region\(mask, k\).*task="segmentation" says'):
        explain(sw.wrap(tiny_unet()), images(1), "gradient", 1)


def test_two_masks_on_one_image_are_two_rows_with_two_records(tmp_path):
    one, two = torch.zeros(8, 8), torch.zeros(8, 8)
    one[:4], two[4:] = 1, 1
    region = sw.target.region
    e = explain(wrapped(), images(1), "gradient", [[region(one, 1), region(two, 1)]])
    assert torch.allclose(
        e.raw.sum(0), explain(wrapped(), images(1), "gradient", region(one + two, 1)).raw[0], atol=1e-4
    )
    e.save(tmp_path / "run")
    assert len(sw.read_explanation(tmp_path / "run")) == 2


def test_labels_of_a_segmentation_network_are_counted():
    with pytest.raises(sw.UsageError, match=f"3 labels given, but the network has {CLASSES} outputs"):
        explain(wrapped(tiny_unet(), labels=["a", "b", "c"]), images(1), "gradient", sw.target.region(None, 1))


def test_a_segformer_of_transformers_is_read_at_a_quarter_of_the_size():
    transformers = pytest.importorskip("transformers")
    config = transformers.SegformerConfig(
        num_encoder_blocks=2,
        depths=[1, 1],
        sr_ratios=[2, 1],
        hidden_sizes=[8, 16],
        patch_sizes=[7, 3],
        strides=[4, 2],
        num_attention_heads=[1, 2],
        mlp_ratios=[2, 2],
        decoder_hidden_size=16,
        num_labels=3,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = transformers.SegformerForSemanticSegmentation(config).eval()
    x = images(1, size=(64, 64))
    e = explain(wrapped(net, size=64), x, "grad_cam", sw.target.region(torch.ones(16, 16), 1))
    assert torch.allclose(e.scores, net(x).logits[:, 1].sum((1, 2)).detach(), rtol=1e-4)
