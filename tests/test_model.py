"""VisionModel: what wrap takes, what one batch size means, what a fingerprint is, and which kinds of module work."""

import warnings

import pytest
import torch
from torch import nn

import seewhy as sw
from nets import (
    CLASSES,
    MEAN,
    STD,
    Cnn,
    images,
    seeded,
    small_memory,
    tiny_cnn,
    tiny_inplace,
    tiny_residual,
    tiny_vit,
)
from seewhy.registry import METHODS
from small import REPRESENTATIVES, SMALL

sw.methods()
GIVEN = SMALL | {"integrated_gradients": {"rule": "midpoint", "steps": 12, "baseline": "mean"}}
ALL = [name for name in REPRESENTATIVES if name in METHODS]
each_method = pytest.mark.parametrize("method", ALL)
each_method_of_few_digits = pytest.mark.parametrize(
    "method", [name for name in ALL if name != "occlusion"]
)  # which subtracts scores of pictures that differ little: of bfloat16's three digits none is left, and it says so


def explain(model, x, method, target=1, **given):
    return sw.explain(model, x, method, target, **{**GIVEN.get(method, {}), **given})


def same_to(a, b, tolerance=1e-5, rounding=0.0):
    return float((a - b).abs().max()) <= tolerance * float(b.abs().max()) + rounding


def rounding_of(method):
    """What a difference of two probabilities in float32 may be off; 0 for methods that subtract none."""
    return 4 * torch.finfo(torch.float32).eps if method == "occlusion" else 0.0


# -- wrap --------------------------------------------------------------------------------------------------------------

WRONG = [
    {"mean": MEAN},
    {"std": STD},
    {"mean": (0.5,), "std": STD},
    {"mean": 0.5, "std": 0.5},
    {"mean": [], "std": []},
    {"mean": MEAN, "std": (0.2, 0.0, 0.2)},
    {"mean": MEAN, "std": (0.2, float("nan"), 0.2)},
    {"crop": 0},
    {"crop": 1.2},
    {"crop": 87.5},
    {"task": "multi-class"},
    {"precision": "half"},
    {"batch_size": 0},
    {"batch_size": -3},
    {"batch_size": 2.5},
    {"batch_size": "8"},
    {"size": 0},
    {"size": -32},
    {"size": (32,)},
    {"size": "32"},
    {"interpolation": "cubic"},
    {"labels": "cat"},
]


@pytest.mark.parametrize("given", WRONG, ids=str)
def test_what_wrap_cannot_mean_is_a_usage_error(given):
    with pytest.raises(sw.UsageError):
        sw.wrap(tiny_cnn(), **given)


@pytest.mark.parametrize("module", [None, "resnet50", lambda x: x, Cnn, torch.zeros(3)])
def test_only_a_module_is_wrapped(module):
    with pytest.raises(sw.UsageError, match=r"nn\.Module"):
        sw.wrap(module)


@pytest.mark.parametrize(
    ("given", "hint"), [({"task": "multi-class"}, "multiclass"), ({"precision": "bfloat"}, "bfloat16")]
)
def test_a_typo_in_a_choice_gets_near_names(given, hint):
    with pytest.raises(sw.UsageError, match=f"did you mean '{hint}'"):
        sw.wrap(tiny_cnn(), **given)


def test_a_wrapped_model_keeps_what_it_was_told():
    net = tiny_cnn()
    model = sw.wrap(net, mean=MEAN, std=STD, size=(32, 48), labels=list("abcde"), batch_size=4, name="mine")
    assert model.module is net
    assert (model.size, model.channels, model.batch_size, model.name) == ((32, 48), 3, 4, "mine")
    assert model.labels == list("abcde")
    assert model.input_shape() == (3, 32, 48)
    assert sw.wrap(net, size=32).size == (32, 32)
    assert "mine" in repr(model)


class Manual(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1))

    def forward(self, x):
        return self.net((x - self.mean) / self.std)


@each_method
def test_normalization_inside_the_model_equals_normalization_by_hand(method):
    x = images(2)
    takes = METHODS[method].parameters
    given = (
        {"baseline": "mean"} if "baseline" in takes else {}
    )  # seewhy cannot know the color that a network maps to zero
    here, there = ({"layer": name} if "layer" in takes else {} for name in ("relu2", "net.relu2"))
    e = explain(sw.wrap(tiny_cnn(), mean=MEAN, std=STD), x, method, **here, **given)
    by_hand = explain(sw.wrap(Manual(tiny_cnn())), x, method, **there, **given)
    assert same_to(e.raw, by_hand.raw, rounding=rounding_of(method))
    assert torch.allclose(e.scores, by_hand.scores, atol=1e-5)


def test_predict_is_the_network_on_normalized_pixels_in_any_batch():
    net, x = tiny_cnn(), images(7)
    wanted = Manual(net)(x).detach()
    for batch_size in (None, 1, 3, 100):
        table = sw.wrap(net, mean=MEAN, std=STD, batch_size=batch_size).predict(x)
        assert torch.allclose(table, wanted, atol=1e-5)
        assert not table.requires_grad


# -- wrappers ------------------------------------------------------------------------------------------------------------


def compiled(net):
    return torch.compile(net, backend="eager")


@pytest.mark.parametrize(
    "wrapper",
    [nn.DataParallel, compiled, lambda net: nn.DataParallel(compiled(net)), lambda net: compiled(nn.DataParallel(net))],
    ids=["data parallel", "compiled", "both", "both the other way"],
)
@pytest.mark.parametrize("method", ["grad_cam", "gradient"])
def test_wrappers_are_taken_off(wrapper, method):
    net, x = tiny_cnn(), images(2)
    model = sw.wrap(wrapper(net))
    assert model.module is net
    assert torch.equal(explain(model, x, method).raw, explain(sw.wrap(net), x, method).raw)
    assert torch.equal(explain(wrapper(net), x, method).raw, explain(sw.wrap(net), x, method).raw)
    assert model.fingerprint() == sw.wrap(net).fingerprint()


# -- one batch size ----------------------------------------------------------------------------------------------------


def largest_batch(net, call):
    seen = []
    handle = net.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    call()
    handle.remove()
    return max(seen)


@each_method
@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
@pytest.mark.parametrize("n", [1, 7])
def test_no_forward_has_more_rows_than_the_batch_size(method, batch_size, n):
    net, x = tiny_cnn(), images(n)
    model = sw.wrap(net, batch_size=batch_size)
    probes = 2 if METHODS[method].resolution == "layer" else 1  # layers are found by swapping two probe images
    assert largest_batch(net, lambda: explain(model, x, method)) <= max(batch_size, probes)


@pytest.mark.parametrize(("rows", "halvings"), [(1, 3), (2, 2), (3, 2), (4, 1), (5, 1)])
@each_method
def test_out_of_memory_halves_the_batch_warns_once_a_size_and_gives_the_same_maps(method, rows, halvings):
    net, x = small_memory(rows), images(8)
    model = sw.wrap(net, batch_size=8)
    if rows == 1 and METHODS[method].resolution == "layer":
        with pytest.raises(sw.RefusalError, match="two images at once"):
            explain(model, x, method)
        return
    with pytest.warns(RuntimeWarning, match="do not fit") as caught:
        e = explain(model, x, method)
    assert len(caught) == halvings
    of_layers = METHODS[method].resolution == "layer" and rows < 5  # they are looked for with five rows first
    tried = halvings + (rows == 1) + of_layers  # a row beside another is tried once
    assert sum(asked > rows for asked in net.asked) == tried
    assert model.batch_size <= rows
    wanted = explain(sw.wrap(tiny_cnn(), batch_size=8), x, method).raw
    assert same_to(e.raw, wanted, rounding=rounding_of(method))
    assert (
        e.evidence["gradient_rows"].tolist()
        == explain(sw.wrap(tiny_cnn()), x, method).evidence["gradient_rows"].tolist()
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        explain(model, x, method)


@pytest.mark.filterwarnings("ignore:.*do not fit:RuntimeWarning")
def test_one_image_that_does_not_fit_is_a_refusal():
    with pytest.raises(sw.RefusalError, match="one image does not fit"):
        explain(sw.wrap(small_memory(0), batch_size=8), images(3), "gradient", target=lambda out: out[:, 0])


def test_predict_also_halves():
    with pytest.warns(RuntimeWarning, match="going on with 4"):
        table = sw.wrap(small_memory(4), batch_size=8).predict(images(8))
    assert torch.allclose(table, tiny_cnn()(images(8)).detach(), atol=1e-6)


def test_an_unsaid_batch_size_is_timed_once():
    net, seen = tiny_cnn(), []
    net.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    model = sw.wrap(net)
    model.predict(images(40))
    model.predict(images(40))
    assert seen[:3] == [1, 1, 2]  # one row in each memory format, and beside another
    seen = seen[3:]
    timing, chosen = seen[:4], seen[4]
    assert timing == [16, 16, 8, 4]
    assert chosen in (4, 8, 16)
    assert len(seen) == 4 + 2 * -(-40 // chosen)
    assert model.forward_rows == 80


# -- fingerprint ---------------------------------------------------------------------------------------------------------


def change_in_place(net):
    with torch.no_grad():
        net.conv1.weight[0, 0, 0, 0] += 1e-3


def change_buffer(net):
    net.bn1.running_mean[0] += 1e-3


def replace_parameter(net):
    net.fc.bias = nn.Parameter(net.fc.bias.detach() + 1e-3)


def load_weights(net):
    net.load_state_dict(tiny_cnn(seed=1).state_dict())


def step(net):
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    net(images(2)).square().sum().backward()
    optimizer.step()


@pytest.mark.parametrize("change", [change_in_place, change_buffer, replace_parameter, load_weights, step])
def test_a_fingerprint_changes_when_one_weight_does(change):
    net = tiny_cnn()
    model = sw.wrap(net)
    before = model.fingerprint()
    assert model.fingerprint() == before
    change(net)
    assert model.fingerprint() != before
    assert model.fingerprint() == sw.wrap(net).fingerprint()


@pytest.mark.parametrize("change", [change_in_place, load_weights])
def test_an_explanation_of_weights_that_have_changed_does_not_claim_the_new_ones(change):
    net = tiny_cnn()
    model = sw.wrap(net)
    e = explain(model, images(1), "gradient")
    change(net)
    assert e.fingerprint() != sw.wrap(net).fingerprint()


def test_a_fingerprint_stays_the_same_under_everything_else():
    net = tiny_cnn()
    model = sw.wrap(net)
    before = model.fingerprint()
    explain(model, images(2), "grad_cam")
    net.train()
    net.requires_grad_(False)
    net.fc.bias.grad = torch.ones(CLASSES)
    assert model.fingerprint() == before
    assert sw.wrap(tiny_cnn(), mean=MEAN, std=STD, labels=list("abcde")).fingerprint() == before
    assert sw.wrap(tiny_inplace()).fingerprint() != before


@pytest.mark.parametrize("form", ["pt", "safetensors"])
def test_a_fingerprint_does_not_depend_on_the_file_format(form, tmp_path):
    net, path = tiny_vit(), tmp_path / f"weights.{form}"
    if form == "pt":
        torch.save(net.state_dict(), path)
        state = torch.load(path, weights_only=True)
    else:
        files = pytest.importorskip("safetensors.torch")
        files.save_file(net.state_dict(), path)
        state = files.load_file(path)
    other = tiny_vit(seed=9)
    assert sw.wrap(other).fingerprint() != sw.wrap(net).fingerprint()
    other.load_state_dict(state)
    assert sw.wrap(other).fingerprint() == sw.wrap(net).fingerprint()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_fingerprint_of_other_number_types_is_its_own(dtype):
    assert sw.wrap(tiny_cnn().to(dtype)).fingerprint() != sw.wrap(tiny_cnn()).fingerprint()


def test_a_fingerprint_sees_the_buffers_that_no_file_holds():
    net = tiny_cnn()
    net.register_buffer("grid", torch.ones(3), persistent=False)
    before = sw.wrap(net).fingerprint()
    net.grid[0] = 2
    assert sw.wrap(net).fingerprint() != before


def test_a_fingerprint_sees_the_packed_weights_of_quantized_layers():
    def quantized(scale):
        net = tiny_cnn()
        net.fc.weight.data[0] *= scale
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch announces another way to quantize
            return sw.wrap(torch.ao.quantization.quantize_dynamic(net, {nn.Linear})).fingerprint()

    assert quantized(1) == quantized(1) != quantized(0.5)


# -- labels ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [None, 1, "b"])
@pytest.mark.parametrize("labels", [["a", "b"], list("abcdefg"), ["b"]])
@pytest.mark.parametrize("method", ["gradient", "grad_cam"])
def test_a_wrong_number_of_labels_is_an_error_with_both_numbers_every_time(target, labels, method):
    model = sw.wrap(tiny_cnn(), labels=labels)
    for _ in range(2):
        with pytest.raises(sw.UsageError, match=f"{len(labels)}.*{CLASSES}"):
            explain(model, images(1), method, target="b" if target == "b" else target)


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_labels_name_targets_and_predictions(task):
    e = explain(sw.wrap(tiny_cnn(), labels=list("abcde"), task=task), images(1), "gradient", target="C")
    assert e.targets[0]["index"] == 2
    assert "2 c" in e.target_text[0]
    assert {p["label"] for p in e.predictions[0]} == set("abcde")


@pytest.mark.parametrize("labels", [["benign", "malignant"], ["malignant"]])
def test_a_binary_network_takes_two_labels_or_one(labels):
    e = explain(sw.wrap(seeded(Cnn)(classes=1), labels=labels, task="binary"), images(1), "gradient", target=1)
    assert e.predictions[0][0]["label"] in ("malignant", "benign", "not malignant")
    assert sum(p["probability"] for p in e.predictions[0]) == pytest.approx(1)


# -- number types --------------------------------------------------------------------------------------------------------


def ranks(values):
    return values.flatten().argsort().argsort().float()


def rank_correlation(a, b):
    return float(torch.corrcoef(torch.stack([ranks(a), ranks(b)]))[0, 1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("build", [tiny_cnn, tiny_residual, tiny_vit])
@each_method_of_few_digits
def test_a_network_in_another_float_type_gives_float32_maps_like_the_float32_ones(dtype, build, method):
    x = images(1)
    e, plain = (explain(sw.wrap(net, mean=MEAN, std=STD), x, method) for net in (build().to(dtype), build()))
    assert e.raw.dtype == torch.float32
    assert e.scores.dtype == torch.float32
    assert torch.isfinite(e.raw).all()
    assert e.status == plain.status
    assert rank_correlation(e.raw, plain.raw) > 0.95


@pytest.mark.parametrize("build", [tiny_cnn, tiny_vit])
@each_method_of_few_digits
def test_precision_bfloat16_gives_float32_maps_like_the_float32_ones(build, method):
    x = images(1)
    e, plain = (explain(sw.wrap(build(), precision=p), x, method) for p in ("bfloat16", "float32"))
    assert e.raw.dtype == torch.float32
    assert e.validity["precision"] == "bfloat16"
    assert rank_correlation(e.raw, plain.raw) > 0.95


def test_a_module_without_parameters_works():
    net = nn.Sequential(nn.AvgPool2d(8), nn.Flatten())
    e = explain(sw.wrap(net), images(1), "gradient", target=0)
    assert e.ok == [True]
    assert e.raw[0, :8, :8].allclose(torch.full((8, 8), 1 / 64))


# -- scripted and traced ---------------------------------------------------------------------------------------------------


@pytest.fixture(params=["scripted", "traced"])
def hidden(request):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(tiny_cnn()) if request.param == "scripted" else torch.jit.trace(tiny_cnn(), images(2))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("method", sorted(name for name in ALL if "layer" not in METHODS[name].parameters))
@pytest.mark.parametrize("training", [False, True])
def test_a_scripted_network_has_the_input_maps_of_the_eager_one(hidden, method, training):
    hidden.train(training)
    e = explain(sw.wrap(hidden, mean=MEAN, std=STD), images(3), method)
    assert same_to(e.raw, explain(sw.wrap(tiny_cnn(), mean=MEAN, std=STD), images(3), method).raw)
    assert hidden.training is training


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("layer", [None, "relu2"])
def test_a_layer_method_on_a_scripted_network_is_refused(hidden, layer):
    with pytest.raises(sw.RefusalError, match=r"scripted.*gradient"):
        explain(sw.wrap(hidden), images(1), "grad_cam", layer=layer)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_layers_of_a_scripted_network_are_refused(hidden):
    with pytest.raises(sw.RefusalError, match="scripted"):
        sw.wrap(hidden, size=32).layers()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_layer_method_on_a_network_with_a_scripted_part_uses_the_rest_or_refuses():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 6, 3, 2, 1)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.body = torch.jit.script(nn.Sequential(nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU()))
            self.fc = nn.Linear(8, CLASSES)

        def forward(self, x):
            return self.fc(self.body(self.stem(x)).mean((2, 3)))

    net = seeded(Mixed)()
    try:
        e = explain(sw.wrap(net), images(1), "grad_cam", target=1)
    except sw.RefusalError:
        return
    assert e.layer in ("stem", "body")
    assert e.ok == [True]


class Layout(nn.Module):
    """Notes how its input is laid out; what it does then is given."""

    def __init__(self, then):
        super().__init__()
        self.convolution, self.then, self.seen = nn.Conv2d(3, 4, 3), then, []

    def forward(self, x):
        self.seen.append(x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous())
        return self.then(self.convolution(x))


def test_images_go_in_channels_last_where_the_network_says_the_same():
    net = Layout(lambda a: a.mean((2, 3)))
    model = sw.wrap(net)
    table = model.predict(images(2))
    assert net.seen[-1] is True
    assert model.memory_format((3, 32, 32)) == "channels_last"
    assert torch.allclose(table, net(images(2)), atol=1e-5)


@pytest.mark.parametrize(
    "then",
    [
        lambda a: a.view(len(a), -1),  # raises on other strides
        lambda a: torch.as_strided(a, (len(a), 4), (a.stride(0), 1)),  # reads memory as it lies: other numbers
        lambda a: a.mean((2, 3)) * float("nan"),
    ],
    ids=["raises", "differs", "not finite"],
)
def test_a_network_that_minds_the_memory_format_gets_its_own(then):
    net = Layout(then)
    torch.manual_seed(0)
    model = sw.wrap(net)
    model.predict(images(2))
    assert net.seen[-1] is False
    assert model.memory_format((3, 32, 32)) == "contiguous"


def test_the_memory_format_is_tried_once_and_not_counted():
    net = Layout(lambda a: a.mean((2, 3)))
    model = sw.wrap(net)
    for _ in range(3):
        model.predict(images(2))
    assert len(net.seen) == 3 + 3
    assert model.forward_rows == 6


def test_images_without_two_axes_or_with_one_channel_are_left_as_they_are():
    assert sw.wrap(nn.Flatten()).memory_format((3, 40)) == "contiguous"
    assert sw.wrap(nn.Flatten()).memory_format((1, 16, 16)) == "contiguous"


@pytest.mark.parametrize(("method", "said"), [("occlusion", True), ("grad_cam", False)])
def test_differences_of_scores_say_how_few_digits_they_have(method, said):
    for model in (sw.wrap(tiny_cnn(), precision="bfloat16"), sw.wrap(tiny_cnn().to(torch.bfloat16))):
        e = explain(model, images(1), method)
        assert any("few digits" in text for text in e.validity["approximations"]) is said
    assert not any(
        "few digits" in t for t in explain(sw.wrap(tiny_cnn()), images(1), method).validity["approximations"]
    )
