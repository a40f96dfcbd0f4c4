"""explain(): from what users pass to maps with a status, and back from the disk."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import seewhy as sw
from nets import (
    CLASSES,
    MEAN,
    STD,
    Cnn,
    images,
    linear,
    seeded,
    signal,
    tiny_cnn,
    tiny_unet,
    tiny_vit,
    volume,
)
from seewhy.registry import METHODS
from small import REPRESENTATIVES, SMALL

sw.methods()
ALL = [name for name in REPRESENTATIVES if name in METHODS]
GRADIENT = [name for name in ALL if METHODS[name].needs_gradients]
each_method = pytest.mark.parametrize("method", ALL)


def explain(model, x, method="gradient", target=None, **given):
    return sw.explain(model, x, method, target, **{**SMALL.get(method, {}), **given})


def wrapped(net=None, **given):
    return sw.wrap(tiny_cnn() if net is None else net, **{"mean": MEAN, "std": STD, "size": 32, **given})


# -- status ----------------------------------------------------------------------------------------------------------------


class Poisoned(Cnn):
    """NaN for images whose first pixel is bright."""

    def forward(self, x):
        return super().forward(x) * torch.where(x[:, 0, 0, 0] > 0.9, torch.nan, 1.0).view(-1, 1)


def one_poisoned():
    x = images(3) * 0.8
    x[1, 0, 0, 0] = 1.0
    return x


@each_method
def test_a_network_that_gives_nan_for_one_image_spoils_that_row_only(method):
    x = one_poisoned()
    e = explain(sw.wrap(seeded(Poisoned)()), x, method, target=3)
    assert [str(s) for s in e.status] == ["ok", "non_finite", "ok"]
    assert e.ok == [True, False, True]
    assert torch.equal(e.raw[1], torch.zeros_like(e.raw[1]))
    assert torch.isfinite(e.raw).all()
    clean = explain(sw.wrap(tiny_cnn()), x, method, target=3)
    assert torch.allclose(e.raw[0], clean.raw[0], atol=1e-6)


@each_method
def test_a_network_that_gives_nan_for_the_predicted_class_has_no_map(method):
    e = explain(sw.wrap(seeded(Poisoned)()), one_poisoned()[1:2], method)
    assert e.status == [sw.Status.NON_FINITE]
    assert not e.raw.any()


def pictures_of(e, i=0):
    return [np.asarray(e.heatmap(i)), np.asarray(e.overlay(i))]


def test_a_row_without_a_map_is_never_drawn_as_one():
    e = explain(sw.wrap(seeded(Poisoned)()), one_poisoned(), "gradient", target=1)
    for shown in pictures_of(e, 1):
        assert shown.shape[:2] == (32, 32)  # a note on the picture, and no color bar below it
    for shown in pictures_of(e, 0):
        assert shown.shape[0] > 32


def dead():
    net = tiny_cnn()
    net.bn2.bias.data.fill_(-1e3)
    return net


def test_the_same_value_everywhere_is_constant():
    net = linear()
    net.fc.weight.data[2] = 0.01
    e = explain(sw.wrap(net), images(1), "gradient", target=2)
    assert e.status == [sw.Status.CONSTANT]
    assert not e.raw.any()
    assert explain(sw.wrap(net), torch.full((1, 3, 32, 32), 0.5), "edge_map").status == [sw.Status.CONSTANT]


def test_a_cam_without_a_positive_cell_keeps_its_signed_map():
    net = tiny_cnn()
    net.fc.weight.data[3] = -net.fc.weight.data[3].abs() - 0.1
    e = explain(wrapped(net), images(2), "grad_cam", target=3)
    assert e.status == [sw.Status.ALL_NEGATIVE] * 2
    assert e.ok == [False, False]
    assert e.raw.min() < 0
    assert e.raw.max() <= 0
    assert all(shown.shape[:2] == (32, 32) for shown in pictures_of(e))


@pytest.mark.parametrize("method", ["gradient", "integrated_gradients"])
def test_a_signed_or_magnitude_map_that_is_all_negative_is_a_map(method):
    net = linear()
    net.fc.weight.data.abs_().neg_()
    assert explain(sw.wrap(net), images(1), method, target=0).ok == [True]


# -- closed forms -----------------------------------------------------------------------------------------------------------


def test_maps_of_a_linear_network_are_its_weights():
    net, x = linear(), images(2)
    weights = net.fc.weight[3].detach().view(3, 32, 32)
    assert torch.allclose(explain(sw.wrap(net), x, "gradient", 3).raw, weights.sum(0).expand(2, -1, -1), atol=1e-6)
    assert torch.allclose(explain(sw.wrap(net), x, "smooth_grad", 3).raw, weights.sum(0).expand(2, -1, -1), atol=1e-5)
    assert torch.allclose(explain(sw.wrap(net), x, "integrated_gradients", 3).raw, (weights * x).sum(1), atol=1e-5)


# -- targets ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["gradient", "grad_cam", "edge_map"])
@pytest.mark.parametrize(("given", "n"), [([1], 8), ([0, 1, 2], 8), ([1, 2], 1), (torch.tensor([1, 2]), 3), (["a"], 2)])
def test_a_target_count_that_is_not_the_number_of_images_names_both(method, given, n):
    with pytest.raises(sw.UsageError, match=f"{len(given)} targets for {n} images"):
        explain(wrapped(labels=list("abcde")), images(n), method, given)


def test_a_count_of_lists_that_is_not_the_number_of_images_names_both():
    with pytest.raises(sw.UsageError, match=r"2 lists.* 3 images"):
        explain(wrapped(), images(3), "gradient", [[0], [1]])


@each_method
def test_a_list_of_lists_gives_one_row_per_pair(method):
    model, x = wrapped(), images(3)
    e = explain(model, x, method, [[0, 1], [4], [2, 3, 0]])
    assert e.image_index == [0, 0, 1, 2, 2, 2]
    assert [t["index"] for t in e.targets] == [0, 1, 4, 2, 3, 0]
    assert len(e) == len(e.raw) == len(e.scores) == len(e.predictions) == len(e.target_text) == 6
    assert len(e.images) == len(e.sources) == 3
    assert torch.allclose(e.raw[5], explain(model, x[2:], method, 0).raw[0], atol=1e-6)
    if METHODS[method].uses_target:
        assert not torch.equal(e.raw[0], e.raw[1])


@each_method
def test_without_a_target_the_predicted_class_is_explained_at_no_extra_cost(method):
    model, x = wrapped(), images(4)
    best = model.predict(x).argmax(1)
    rows = model.forward_rows, model.gradient_rows
    e = explain(model, x, method)
    asked = explain(model, x, method, best)
    assert torch.equal(e.raw, asked.raw)
    assert [t["index"] for t in e.targets] == best.tolist()
    assert e.target_text == asked.target_text
    assert (model.forward_rows - rows[0]) == 2 * int(asked.evidence["forward_rows"].sum())
    assert (model.gradient_rows - rows[1]) == 2 * int(asked.evidence["gradient_rows"].sum())


@each_method
def test_a_multi_label_network_is_explained_for_every_class_that_it_sees(method):
    net = tiny_cnn()
    net.fc.weight.data.zero_()
    net.fc.weight.data += torch.rand(CLASSES, 12, generator=torch.Generator().manual_seed(0)) * 0.01
    net.fc.bias.data[:] = torch.tensor([3.0, -3.0, 3.0, -3.0, -3.0])
    e = explain(wrapped(net, task="multilabel"), images(2), method)
    assert e.image_index == [0, 0, 1, 1]
    assert [t["index"] for t in e.targets] == [0, 2, 0, 2]
    net.fc.bias.data[:] = torch.tensor([-3.0, -3.0, -3.0, -2.0, -3.0])
    assert [t["index"] for t in explain(wrapped(net, task="multilabel"), images(2), method).targets] == [3, 3]


@pytest.mark.parametrize("method", ALL)
def test_a_regression_network_is_explained_by_its_output(method):
    model = wrapped(seeded(Cnn)(classes=1), task="regression")
    e = explain(model, images(2), method)
    assert torch.allclose(e.scores, model.predict(images(2))[:, 0], atol=1e-6)
    assert e.target_text == ["the output"] * 2
    assert e.predictions == [[], []]


@pytest.mark.parametrize("method", GRADIENT)
@pytest.mark.parametrize("form", ["one mask", "a mask per image", "predicted"])
def test_a_region_of_a_segmentation_network_is_explained(method, form):
    model, x = sw.wrap(tiny_unet(), task="segmentation", batch_size=3), images(2)
    table = tiny_unet()(x).detach()
    mask = torch.zeros(32, 32)
    mask[8:20, 4:30] = 1
    k = int(table.argmax(1).flatten().mode().values)
    if form == "predicted":
        given, wanted = None, (table[:, k] * (table.argmax(1) == k)).flatten(1).sum(1)
    else:
        given = mask if form == "one mask" else torch.stack([mask, 1 - mask])
        wanted = (table[:, k] * given).flatten(1).sum(1)
    e = explain(model, x, method, sw.target.region(given, k))
    assert torch.allclose(e.scores, wanted, rtol=1e-4)
    assert e.ok == [True, True]
    single = explain(
        model, x[1:], method, sw.target.region(given if given is None or given.ndim == 2 else given[1:], k)
    )
    assert torch.allclose(e.raw[1], single.raw[0], atol=1e-5 * float(single.raw.abs().max()))


MASKS = {
    "other size": torch.ones(16, 16),
    "three masks": torch.ones(3, 32, 32),
    "four axes": torch.ones(2, 1, 32, 32),
    "one axis": torch.ones(32),
    "numpy of another size": np.ones((16, 16)),
    "a number": 1,
}


@pytest.mark.parametrize("method", ["gradient", "grad_cam"])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_a_mask_that_does_not_fit_is_a_usage_error(method, mask):
    with pytest.raises(sw.UsageError):
        explain(sw.wrap(tiny_unet(), task="segmentation"), images(2), method, sw.target.region(mask, 1))


@pytest.mark.parametrize("method", ["gradient", "grad_cam"])
def test_a_mask_made_inside_inference_mode_is_the_same_region(method):
    model, x = sw.wrap(tiny_unet(), task="segmentation"), images(1)
    wanted = explain(model, x, method, sw.target.region(torch.ones(32, 32).bool(), 1)).raw
    with torch.inference_mode():
        assert torch.equal(explain(model, x, method, sw.target.region(torch.ones(32, 32).bool(), 1)).raw, wanted)


@pytest.mark.parametrize("method", ["integrated_gradients"])
def test_a_baseline_made_inside_inference_mode_is_the_same_baseline(method):
    model, x = wrapped(), images(2)
    wanted = explain(model, x, method, baseline=torch.full((3, 32, 32), 0.3)).raw
    with torch.inference_mode():
        assert torch.equal(explain(model, x, method, baseline=torch.full((3, 32, 32), 0.3)).raw, wanted)


@each_method
@pytest.mark.parametrize(
    "target", [CLASSES, -1, [0, CLASSES], 99, "99", sw.target.margin(0, 7), sw.target.output(5), [[0], [0, 6]]], ids=str
)
def test_a_target_out_of_range_is_an_error_with_the_range_before_the_method_runs(method, target):
    model = wrapped()
    with pytest.raises(sw.UsageError, match="0 to 4"):
        explain(model, images(2), method, target)
    assert (model.forward_rows, model.gradient_rows) == (0, 0)


NO_TARGET = [1.5, True, [], [[]], [[], []], [1.0, 2.0], {"a": 1}, [0, [1]], [None, None], float("nan"), ["a", "a - b"]]
NO_TARGET += [torch.tensor([1.0, 2.0]), torch.tensor([True, False]), torch.zeros(2, 2).long(), np.array([1.0, 2.0])]
NO_TARGET += ["nonesuch", "a - nonesuch", "", " - "]


@pytest.mark.parametrize("target", NO_TARGET, ids=lambda t: str(t).replace("\n", ""))
def test_what_is_no_target_is_a_usage_error(target):
    model = wrapped(labels=["a", "b", "c", "d", "e"])
    with pytest.raises(sw.UsageError):
        explain(model, images(2), "gradient", target)
    assert (model.forward_rows, model.gradient_rows) == (0, 0)


def test_a_class_name_with_a_typo_gets_near_names():
    model = wrapped(labels=["tabby", "lynx", "persian", "siamese", "collie"])
    with pytest.raises(sw.UsageError, match=r"'taby'.*did you mean 'tabby'"):
        explain(model, images(1), "gradient", "taby")
    assert explain(model, images(1), "gradient", "Lynx - tabby").target_text == ["logit of 1 lynx minus 0 tabby"]


@pytest.mark.parametrize("method", GRADIENT)
def test_a_function_of_the_output_is_a_target(method):
    model, x = wrapped(), images(3)
    e = explain(model, x, method, lambda out: out[:, 2] - out[:, 0])
    wanted = explain(model, x, method, sw.target.margin(2, 0))
    assert torch.allclose(e.raw, wanted.raw, atol=1e-6)
    assert torch.allclose(e.scores, wanted.scores, atol=1e-6)
    assert explain(model, x, method, sw.target.of(lambda out: out[:, 2])).raw.shape == wanted.raw.shape


@pytest.mark.parametrize(
    "function",
    [lambda out: out, lambda out: out.sum(), lambda out: 3, lambda out: None, lambda out: out[:1, 0]],
    ids=["table", "one number", "int", "nothing", "one row"],
)
@pytest.mark.parametrize("method", ["gradient", "grad_cam"])
def test_a_function_that_does_not_give_one_number_a_row_is_a_usage_error(function, method):
    with pytest.raises(sw.UsageError, match="one number per row"):
        explain(wrapped(), images(3), method, function)


def test_scales_of_one_class_differ_and_are_told():
    model, x = wrapped(), images(1)
    logit, p, log_p = (
        explain(model, x, "gradient", sw.target.logit(2).on(s)) for s in ("logit", "probability", "log_probability")
    )
    assert torch.allclose(log_p.scores.exp(), p.scores, atol=1e-6)
    assert 0 < float(p.scores) < 1
    assert torch.allclose(p.raw, log_p.raw * p.scores, atol=1e-6)
    assert [e.target_text[0].split(" of ")[0] for e in (logit, p, log_p)] == ["logit", "probability", "log probability"]
    assert p.validity["probability"][0] == pytest.approx(float(p.scores))


# -- names and values ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typo", "hint"), [("gradcam", "grad_cam"), ("Grad_CAM", "grad_cam"), ("smoothgrad", "smooth_grad")]
)
def test_an_unknown_method_gets_near_names(typo, hint):
    with pytest.raises(sw.UsageError, match=f"{typo}.*'{hint}'"):
        sw.explain(wrapped(), images(1), typo)


@pytest.mark.parametrize(
    ("method", "typo", "hint"), [("smooth_grad", "sampels", "samples"), ("integrated_gradients", "step", "steps")]
)
def test_an_unknown_parameter_gets_near_names(method, typo, hint):
    with pytest.raises(sw.UsageError, match=f"'{typo}'.*'{hint}'"):
        sw.explain(wrapped(), images(1), method, **{typo: 3})


WRONG_VALUES = [
    ("gradient", {"channels": "summ"}),
    ("gradient", {"channels": None}),
    ("gradient", {"seed": "1"}),
    ("gradient", {"seed": -1}),
    ("gradient", {"seed": True}),
    ("gradient", {"seed": 2**31}),
    ("smooth_grad", {"samples": 1}),
    ("smooth_grad", {"samples": 2.5}),
    ("smooth_grad", {"samples": "10"}),
    ("smooth_grad", {"samples": None}),
    ("smooth_grad", {"noise": -0.1}),
    ("smooth_grad", {"noise": float("nan")}),
    ("smooth_grad", {"noise": "0.1"}),
    ("integrated_gradients", {"rule": "simpson"}),
    ("integrated_gradients", {"rule": None}),
    ("integrated_gradients", {"rule": "right", "steps": 0}),
    ("integrated_gradients", {"rule": "right", "steps": 2.5}),
    ("integrated_gradients", {"rule": "right", "steps": "10"}),
    ("integrated_gradients", {"rule": "adaptive", "max_rows": 10}),
    ("integrated_gradients", {"rule": "adaptive", "max_rows": None}),
    ("integrated_gradients", {"tolerance": 0}),
    ("integrated_gradients", {"tolerance": float("nan")}),
    ("integrated_gradients", {"tolerance": "0.1"}),
    ("integrated_gradients", {"baseline": "blck"}),
    ("integrated_gradients", {"baseline": None}),
    ("integrated_gradients", {"baseline": 0}),
    ("integrated_gradients", {"baseline": torch.zeros(3, 8, 8)}),
    ("integrated_gradients", {"baseline": torch.zeros(2, 3, 32, 32)}),
    ("integrated_gradients", {"baseline": torch.full((3, 32, 32), torch.nan)}),
    ("integrated_gradients", {"baseline": np.zeros((3, 32, 32))}),
]


@pytest.mark.parametrize(("method", "given"), WRONG_VALUES, ids=lambda v: str(v).replace("\n", "")[:50])
def test_a_parameter_that_cannot_be_meant_is_a_usage_error_before_any_row(method, given):
    model = wrapped()
    with pytest.raises(sw.UsageError):
        sw.explain(model, images(1), method, 1, **given)
    assert (model.forward_rows, model.gradient_rows) == (0, 0)


@pytest.mark.parametrize("method", [None, 7, "", ["gradient"], METHODS])
def test_what_is_no_method_name_is_a_usage_error(method):
    with pytest.raises(sw.UsageError):
        sw.explain(wrapped(), images(1), method)


def test_a_function_instead_of_a_model_is_a_usage_error():
    with pytest.raises(sw.UsageError, match=r"nn\.Module"):
        sw.explain(lambda x: x, images(1))


@pytest.mark.parametrize("baseline", ["black", "white"])
def test_a_black_or_white_baseline_without_known_bounds_is_refused(baseline):
    with pytest.raises(sw.RefusalError, match="bounds"):
        sw.explain(tiny_cnn(), images(1), "integrated_gradients", 1, baseline=baseline)


# -- images ---------------------------------------------------------------------------------------------------------------

BAD_IMAGES = {
    "nan": lambda: images(2).index_fill(0, torch.tensor([1]), torch.nan),
    "infinite": lambda: images(1) / 0,
    "8 bit": lambda: (images(1) * 255).byte(),
    "8 bit as float": lambda: images(1) * 255,
    "normalized": lambda: (images(1) - 0.45) / 0.2,
    "one image without a batch axis": lambda: images(1)[0],
    "two axes": lambda: torch.rand(32, 32),
    "no image": lambda: torch.zeros(0, 3, 32, 32),
    "no pixel": lambda: torch.zeros(1, 3, 0, 0),
    "one channel": lambda: images(1, channels=1),
    "four channels": lambda: images(1, channels=4),
    "channels last": lambda: images(1).permute(0, 2, 3, 1),
    "complex": lambda: images(1).to(torch.complex64),
    "integers": lambda: torch.ones(1, 3, 32, 32).long(),
    "numpy": lambda: images(1).numpy(),
    "a list of tensors": lambda: list(images(2)),
    "an empty list": list,
    "nothing": lambda: None,
    "a number": lambda: 3,
}


@pytest.mark.parametrize("kind", BAD_IMAGES)
@pytest.mark.parametrize("method", ["gradient", "grad_cam"])
def test_images_that_cannot_be_used_are_a_usage_error_before_any_work(kind, method):
    model = wrapped()
    with pytest.raises(sw.UsageError):
        explain(model, BAD_IMAGES[kind](), method, 1)
    assert (model.forward_rows, model.gradient_rows) == (0, 0)


@pytest.mark.parametrize(
    ("kind", "said"), [("nan", r"\[1\]"), ("8 bit", "255"), ("normalized", r"\[0, 1\]"), ("four channels", "4.*3")]
)
def test_images_that_cannot_be_used_are_described(kind, said):
    with pytest.raises(sw.UsageError, match=said):
        explain(wrapped(), BAD_IMAGES[kind](), "gradient", 1)


@pytest.mark.parametrize(
    "kind", ["nan", "8 bit", "two axes", "no image", "no pixel", "nothing", "numpy", "a list of tensors"]
)
def test_images_that_cannot_be_used_are_a_usage_error_on_a_bare_module_too(kind):
    with pytest.raises(sw.UsageError):
        explain(tiny_cnn(), BAD_IMAGES[kind](), "gradient", 1)


def test_a_bare_module_takes_values_of_any_range():
    assert explain(tiny_cnn(), (images(1) - 0.45) / 0.2, "gradient", 1).ok == [True]


def test_a_pil_image_is_shown_to_the_model_at_its_size():
    photo = Image.fromarray((images(1, size=(40, 60))[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8))
    e = explain(wrapped(size=(32, 48)), [photo, photo], "gradient", 1)
    assert e.raw.shape == (2, 32, 48)
    assert torch.equal(e.raw[0], e.raw[1])
    with pytest.raises(sw.UsageError, match="size"):
        explain(sw.wrap(tiny_cnn()), photo, "gradient", 1)


@pytest.mark.parametrize("size", [(60, 1), (1, 60), (1, 1), (2, 2)])
@each_method
def test_an_axis_of_one_pixel_is_kept(size, method):
    net = seeded(Cnn)()
    if METHODS[method].resolution == "layer" and max(size) <= 2:
        with pytest.raises(sw.RefusalError):
            explain(sw.wrap(net), images(2, size=size), method, 1)
        return
    e = explain(sw.wrap(net), images(2, size=size), method, 1)
    assert e.maps.shape == (2, *size)
    assert e.raw.shape == (2, *(size if METHODS[method].resolution == "input" else [-(-axis // 4) for axis in size]))
    assert torch.isfinite(e.raw).all()
    assert isinstance(e.overlay(), Image.Image)
    assert isinstance(e.heatmap(), Image.Image)


@pytest.mark.parametrize("channels", [1, 2, 12])
@each_method
def test_any_number_of_channels_works_on_a_bare_module(channels, method, tmp_path):
    given = {"baseline": "mean"} if method == "integrated_gradients" else {}
    e = explain(seeded(Cnn)(channels=channels), images(2, channels=channels), method, **given)
    assert all(e.ok)
    assert e.maps.shape == (2, 32, 32)
    assert e.overlay().mode == "RGB"
    assert torch.equal(sw.read_explanation(e.save(tmp_path / "run")).raw, e.raw)


@each_method
def test_a_volume_has_a_map_of_three_axes(method, tmp_path):
    x = images(1, channels=1, size=(16, 32, 32))
    given = {"baseline": "mean"} if method == "integrated_gradients" else {}
    e = explain(volume(), x, method, 1, **given)
    assert e.raw.shape == (1, *((16, 32, 32) if METHODS[method].resolution == "input" else (8, 16, 16)))
    assert e.maps.shape == (1, 16, 32, 32)
    assert e.ok == [True]
    assert not torch.equal(e.maps[0, 0], e.maps[0, -1])
    for draw in (e.heatmap, e.overlay):
        with pytest.raises(sw.UsageError, match="slice"):
            draw()
    again = sw.read_explanation(e.save(tmp_path / "run"))
    assert torch.equal(again.raw, e.raw)
    assert torch.equal(again.maps, e.maps)


@each_method
def test_a_signal_has_a_map_of_one_axis(method, tmp_path):
    given = {"baseline": "mean"} if method == "integrated_gradients" else {}
    e = explain(signal(), images(2, channels=2, size=(40,)), method, 1, **given)
    assert e.raw.shape == (2, 40 if METHODS[method].resolution == "input" else 20)
    assert e.maps.shape == (2, 40)
    assert set(e.status) <= {sw.Status.OK, sw.Status.ALL_NEGATIVE}
    for draw in (e.heatmap, e.overlay):
        with pytest.raises(sw.UsageError):
            draw()
    assert torch.equal(sw.read_explanation(e.save(tmp_path / "run")).raw, e.raw)


# -- save and read -----------------------------------------------------------------------------------------------------------


def assert_equal_explanations(a, b):
    assert torch.equal(a.raw, b.raw)
    assert torch.equal(a.maps, b.maps)
    assert torch.equal(a.scores, b.scores) or torch.equal(a.scores.isfinite(), b.scores.isfinite())
    for name in (
        "method",
        "parameters",
        "targets",
        "target_text",
        "predictions",
        "status",
        "validity",
        "layer",
        "sources",
    ):
        assert getattr(a, name) == getattr(b, name), name
    assert a.image_index == b.image_index
    assert set(a.evidence) == set(b.evidence)
    for name, values in a.evidence.items():
        assert torch.equal(values.double().nan_to_num(-1.0), b.evidence[name].double().nan_to_num(-1.0)), name
    assert a.fingerprint() == b.fingerprint()
    assert a.seconds == b.seconds
    assert {**a.provenance, "model_sha256": a.fingerprint()} == {**b.provenance, "model_sha256": b.fingerprint()}


@each_method
@pytest.mark.parametrize("build", [tiny_cnn, tiny_vit])
def test_what_is_saved_is_read_back_equal(method, build, tmp_path):
    model = sw.wrap(build(), mean=MEAN, std=STD, size=32, labels=["a", "b", "c", "d", "e"])
    e = explain(model, images(3), method, [[0, 1], [2], [4]])
    again = sw.read_explanation(e.save(tmp_path / "run"))
    assert_equal_explanations(e, again)
    assert torch.allclose(again.images, e.images, atol=1 / 255)
    assert again.heatmap(1).tobytes() == e.heatmap(1).tobytes()


@pytest.mark.parametrize("method", ["gradient", "grad_cam", "integrated_gradients", "edge_map"])
def test_a_second_save_of_the_same_does_not_double_it(method, tmp_path):
    model, x = wrapped(), images(2)
    e = explain(model, x, method)
    e.save(tmp_path / "run")
    e.save(tmp_path / "run")
    again = explain(model, x, method)
    again.save(tmp_path / "run")
    assert len(sw.read_explanation(tmp_path / "run")) == 2
    explain(model, x, method, seed=1).save(tmp_path / "run")
    explain(model, images(1, seed=3), method).save(tmp_path / "run")
    assert len(sw.read_explanation(tmp_path / "run")) == 5


def test_rows_without_a_map_are_read_back_with_their_status(tmp_path):
    e = explain(sw.wrap(seeded(Poisoned)()), one_poisoned(), "gradient", 1)
    assert_equal_explanations(e, sw.read_explanation(e.save(tmp_path / "nan")))
    e = explain(wrapped(dead()), images(2), "grad_cam", 1)
    assert_equal_explanations(e, sw.read_explanation(e.save(tmp_path / "dead")))


def test_the_same_picture_twice_is_read_back_as_two_rows(tmp_path):
    x = images(1).expand(2, -1, -1, -1)
    e = explain(wrapped(), x, "gradient", 1)
    again = sw.read_explanation(e.save(tmp_path / "run"))
    assert_equal_explanations(e, again)


def test_a_folder_of_two_methods_is_read_by_name(tmp_path):
    model, x = wrapped(), images(1)
    saved = {name: explain(model, x, name, 1) for name in ("gradient", "grad_cam")}
    for e in saved.values():
        e.save(tmp_path / "run")
    for name, e in saved.items():
        assert_equal_explanations(e, sw.read_explanation(tmp_path / "run", method=name))
    with pytest.raises(sw.UsageError, match="gradient, grad_cam"):
        sw.read_explanation(tmp_path / "run")


def test_images_of_two_sizes_in_one_folder_are_read_or_refused_in_words(tmp_path):
    model = sw.wrap(tiny_cnn())
    for size in ((32, 32), (31, 31)):
        e = explain(model, images(1, size=size), "grad_cam", 1)
        assert e.grid == (8, 8)
        e.save(tmp_path / "run")
    with pytest.raises(sw.UsageError):
        sw.read_explanation(tmp_path / "run")


def test_an_explanation_shows_itself_in_a_terminal():
    e = explain(wrapped(), images(2), "integrated_gradients", 1)
    assert "integrated_gradients: 2 row(s), grid 32 x 32" in repr(e)
    assert "completeness gap" in repr(e)


# -- what is loaded ------------------------------------------------------------------------------------------------------


def modules_after(code):
    program = f"{code}\nimport sys\nprint(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_seewhy_loads_neither_torch_nor_numpy():
    loaded = modules_after("import seewhy")
    assert "seewhy" in loaded
    assert not loaded & {"torch", "numpy", "PIL", "torchvision", "timm"}


def test_explaining_a_tensor_loads_neither_torchvision_nor_timm():
    loaded = modules_after(
        "import torch, seewhy\n"
        "net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 2))\n"
        "assert seewhy.explain(net, torch.rand(1, 3, 8, 8)).ok is not None"
    )
    assert "torch" in loaded
    assert not loaded & {"torchvision", "timm", "skimage", "sklearn", "matplotlib", "cv2"}
