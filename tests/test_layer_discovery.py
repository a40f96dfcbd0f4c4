"""Which layers a network has, how each lies over the image, and which one is taken when nobody says."""

import json

import pytest
import torch
from torch import nn

import seewhy as sw
from layer_nets import (
    attention_maps,
    last_token,
    mirrored,
    mixer,
    pooled,
    queries,
    segmenter,
    sequence_first,
    shuffled,
    strip,
    video,
)
from nets import (
    channels_last,
    dense_like,
    dropout_always,
    images,
    relu_thrice,
    tiny_cnn,
    tiny_inplace,
    tiny_residual,
    tiny_unet,
    tiny_vit,
    two_branches,
    two_outputs,
    volume,
    with_unused,
)

DEFAULTS = [  # network, input size, layer, kind, grid, prefix tokens
    ("cnn", tiny_cnn, (32, 32), "relu2", "channels first", (8, 8), 0),
    ("in place", tiny_inplace, (32, 32), "relu2", "channels first", (16, 16), 0),
    ("residual", tiny_residual, (32, 32), "layer2", "channels first", (8, 8), 0),
    ("dense", dense_like, (32, 32), "norm", "channels first", (16, 16), 0),
    ("relu called three times", relu_thrice, (32, 32), "relu#3", "channels first", (4, 4), 0),
    ("channels last", channels_last, (32, 32), "mlp", "channels last", (8, 8), 0),
    ("vit", tiny_vit, (32, 32), "blocks.0", "tokens", (8, 8), 1),
    ("vit, 4 registers", lambda: tiny_vit(registers=4), (32, 32), "blocks.0", "tokens", (8, 8), 5),
    ("vit, mean pool", lambda: tiny_vit(class_token=False), (32, 32), "norm", "tokens", (8, 8), 0),
    (
        "vit, mean pool, registers",
        lambda: tiny_vit(class_token=False, registers=2),
        (32, 32),
        "norm",
        "tokens",
        (8, 8),
        2,
    ),
    ("vit, wide", lambda: tiny_vit(grid=(4, 12)), (16, 48), "blocks.0", "tokens", (4, 12), 1),
    ("vit, tall", lambda: tiny_vit(grid=(12, 4), registers=3), (48, 16), "blocks.0", "tokens", (12, 4), 4),
    ("cnn, wide", tiny_cnn, (16, 48), "relu2", "channels first", (4, 12), 0),
    ("cnn, odd size", tiny_cnn, (33, 47), "relu2", "channels first", (9, 12), 0),
    ("residual, odd size", tiny_residual, (30, 41), "layer2", "channels first", (8, 11), 0),
]


@pytest.mark.parametrize(
    ("net", "size", "name", "kind", "grid", "prefix"),
    [row[1:] for row in DEFAULTS],
    ids=[row[0] for row in DEFAULTS],
)
def test_the_default_layer_is_the_last_usable_one_on_the_trunk(net, size, name, kind, grid, prefix):
    layer = sw.wrap(net(), size=size).default_layer()
    assert layer.name.removesuffix(".1") == name  # a container and its last child are one place
    assert layer.form.kind == kind
    assert layer.form.grid == grid
    assert layer.form.prefix == prefix
    assert layer.trunk is True
    assert layer.gradient > 0


@pytest.mark.parametrize(("net", "size"), [row[1:3] for row in DEFAULTS], ids=[r[0] for r in DEFAULTS])
def test_the_choice_is_the_same_on_every_run_and_is_recorded(net, size):
    names = set()
    for seed in range(3):
        torch.manual_seed(seed)
        e = sw.explain(sw.wrap(net(), size=size), images(1, size=size, seed=seed), "grad_cam")
        names.add((e.layer, e.grid))
        assert e.ok == [True]
    assert len(names) == 1
    assert names == {(sw.wrap(net(), size=size).default_layer().name, e.grid)}


def test_the_default_layer_of_a_network_that_draws_random_numbers_is_the_last_one():
    assert sw.wrap(dropout_always(), size=32).default_layer().name == "relu2"


def test_cells_of_a_token_layer_lie_where_their_patches_lie():
    net = tiny_vit(grid=(4, 12), registers=2, class_token=False)
    form = sw.wrap(net, size=(16, 48)).find_layer("blocks.0.norm1", (3, 16, 48), sw.target.logit(0)).form
    tokens = torch.arange(50.0).view(1, 50, 1)
    cells = form.cells(tokens)
    assert cells.shape == (1, 1, 4, 12)
    assert cells[0, 0, 0, 0] == 2
    assert cells[0, 0, 2, 5] == 2 + 2 * 12 + 5


def test_cells_of_a_channels_last_layer_keep_their_place():
    form = sw.wrap(channels_last(), size=32).default_layer().form
    values = torch.rand(2, 8, 8, 20)
    assert torch.equal(form.cells(values)[:, 7, 2, 3], values[:, 2, 3, 7])


@pytest.mark.parametrize("dim", [7, 8, 9])
def test_a_channels_last_layer_with_as_many_channels_as_cells_is_not_misread(dim):
    layer = sw.wrap(channels_last(dim), size=32).default_layer()
    assert layer.form.kind == "channels last" or layer.name == "patch"


@pytest.mark.parametrize("registers", [0, 4])
def test_the_last_block_of_a_class_token_vit_is_refused_with_a_better_one(registers):
    net = tiny_vit(registers=registers)
    for layer in ("blocks.1", "norm", net.blocks[1]):
        with pytest.raises(sw.RefusalError, match=r"prefix tokens.*exactly 0.*'blocks\.0'"):
            sw.explain(sw.wrap(net), images(1), "grad_cam", layer=layer)


# -- the trunk -----------------------------------------------------------------------------------------------------


def by_name(net, size=32):
    return {layer.name: layer for layer in sw.wrap(net, size=size).layers()}


def test_the_trunk_of_a_residual_network_runs_through_its_blocks():
    layers = by_name(tiny_residual())
    assert [name for name, layer in layers.items() if layer.trunk] == [
        name for name in layers if name in ("stem", "layer1", "layer2", "layer1.relu#2", "layer2.relu#2")
    ]


def test_the_trunk_of_a_vit_runs_around_its_attention():
    layers = by_name(tiny_vit())
    assert [name for name, layer in layers.items() if layer.trunk] == ["patch", "blocks.0"]


def test_the_bottleneck_of_a_u_net_is_not_on_the_trunk():
    net = nn.Sequential(tiny_unet(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    layers = by_name(net)
    assert layers["0.bottom"].trunk is False
    assert layers["0.up2"].trunk is False
    assert layers["0.up1"].trunk is True


def test_a_map_at_the_bottleneck_of_a_u_net_says_that_part_bypasses_it():
    net = nn.Sequential(tiny_unet(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    e = sw.explain(sw.wrap(net), images(1), "grad_cam", layer="0.bottom")
    assert any("0.bottom" in text and "bypasses" in text for text in e.validity["approximations"])


@pytest.mark.parametrize("net", [two_branches, two_outputs])
def test_a_network_without_a_trunk_says_so_in_its_maps(net):
    target = sw.target.of(lambda out: (out if isinstance(out, torch.Tensor) else out[0] + out[1])[:, 1])
    e = sw.explain(sw.wrap(net()), images(1), "grad_cam", target)
    assert any("bypasses" in text for text in e.validity["approximations"])
    assert e.layer in ("left", "right")


def test_a_map_on_the_trunk_has_no_such_note():
    assert sw.explain(sw.wrap(tiny_residual()), images(1), "grad_cam").validity["approximations"] == []


@pytest.mark.parametrize("first", [0, 1])
def test_two_functions_as_targets_each_get_a_layer_that_they_depend_on(first):
    model, x, layers = sw.wrap(two_outputs()), images(1), []
    for k in (first, 1 - first) * 3:
        e = sw.explain(model, x, "grad_cam", target=lambda out, k=k: out[k][:, 1])  # each made anew: ids come again
        layers.append(e.layer)
    assert layers == [("left", "right")[k] for k in (first, 1 - first)] * 3


# -- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["name", "module", "list of a name", "list of a module", "tuple"])
def test_a_layer_may_be_named_or_handed_over(form):
    net = tiny_cnn()
    layer = {"name": "relu1", "module": net.relu1, "list of a name": ["relu1"], "list of a module": [net.relu1]}.get(
        form, ("relu1",)
    )
    e = sw.explain(sw.wrap(net), images(1), "grad_cam", layer=layer)
    assert e.layer == "relu1"
    assert e.grid == (16, 16)


@pytest.mark.parametrize(
    ("typo", "suggested"), [("rellu2", "relu2"), ("Conv1", "conv1"), ("conv", "conv1"), ("bn_2", "bn2")]
)
def test_a_typo_in_a_layer_name_gets_near_names(typo, suggested):
    with pytest.raises(sw.UsageError, match=f"{typo}.*did you mean.*'{suggested}'"):
        sw.explain(sw.wrap(tiny_cnn()), images(1), "grad_cam", layer=typo)


def test_a_layer_that_the_forward_does_not_reach_is_named():
    net = with_unused()
    with pytest.raises(sw.SeewhyError, match="spare"):
        sw.explain(sw.wrap(net), images(1), "grad_cam", layer="spare")
    with pytest.raises(sw.SeewhyError, match="reached"):
        sw.explain(sw.wrap(net), images(1), "grad_cam", layer=net.spare)


def test_a_module_of_another_network_is_refused():
    with pytest.raises(sw.UsageError, match="not a submodule"):
        sw.explain(sw.wrap(tiny_cnn()), images(1), "grad_cam", layer=tiny_cnn().relu2)


def test_a_layer_that_is_called_several_times_must_be_chosen_by_call():
    net, x = relu_thrice(), images(1)
    with pytest.raises(sw.UsageError, match=r"3 times.*'relu#1'"):
        sw.explain(sw.wrap(net), x, "grad_cam", layer=net.relu)
    with pytest.raises(sw.UsageError, match="relu#"):
        sw.explain(sw.wrap(net), x, "grad_cam", layer="relu")
    assert [sw.explain(sw.wrap(net), x, "grad_cam", layer=f"relu#{k}").grid for k in (1, 2, 3)] == [
        (16, 16),
        (8, 8),
        (4, 4),
    ]


@pytest.mark.parametrize(("layer", "reason"), [("fc", "not spatial"), ("pool", "one cell")])
def test_an_unusable_layer_is_refused_with_its_reason_and_a_better_one(layer, reason):
    with pytest.raises(sw.RefusalError, match=f"{layer}.*{reason}.*'relu2'"):
        sw.explain(sw.wrap(tiny_cnn()), images(1), "grad_cam", layer=layer)


@pytest.mark.parametrize("layer", [[], ["relu1", "relu2"], 3, [3], 1.5, object()])
def test_what_is_no_layer_is_a_usage_error(layer):
    with pytest.raises(sw.UsageError):
        sw.explain(sw.wrap(tiny_cnn()), images(1), "grad_cam", layer=layer)


def test_a_method_on_the_input_takes_no_layer():
    with pytest.raises(sw.UsageError, match="takes no layer"):
        sw.explain(sw.wrap(tiny_cnn()), images(1), "gradient", layer="relu2")


def test_a_network_without_any_spatial_layer_is_refused():
    with pytest.raises(sw.RefusalError, match="Use a method on the input"):
        sw.explain(sw.wrap(nn.Sequential(nn.Flatten(), nn.Linear(3072, 5))), images(1), "grad_cam")


# -- the table ---------------------------------------------------------------------------------------------------------


def test_the_table_lists_every_layer_in_order_of_execution_and_prints():
    seen = []
    table = sw.wrap(tiny_cnn(), size=32).layers(progress=lambda done, total: seen.append((done, total)))
    assert [layer.name for layer in table] == ["conv1", "bn1", "relu1", "conv2", "bn2", "relu2", "pool", "fc"]
    assert [layer.usable for layer in table] == [True] * 6 + [False] * 2
    assert [layer.channels for layer in table][:6] == [8, 8, 8, 12, 12, 12]
    assert all(layer.trunk for layer in table if layer.usable)
    assert len(str(table).splitlines()) == 9
    assert json.loads(json.dumps(table.to_dicts()))[5]["grid"] == [8, 8]
    assert seen == [(k, 8) for k in range(1, 9)]


def test_the_table_needs_the_input_size():
    with pytest.raises(sw.UsageError, match="size"):
        sw.wrap(tiny_cnn()).layers()


def test_layers_are_not_counted_as_rows():
    model = sw.wrap(tiny_cnn(), size=32)
    model.layers()
    model.default_layer()
    assert (model.forward_rows, model.gradient_rows) == (0, 0)


def test_a_volume_has_layers_with_three_axes():
    layer = sw.wrap(volume()).default_layer(shape=(1, 16, 32, 32))
    assert (layer.name, layer.form.grid) == ("conv2", (8, 16, 16))


def runs_until_found(layers):
    """How often a network is run whose last so many layers lie the other way round, until the default layer is known."""
    turned, calls = mirrored(layers), []
    turned.register_forward_hook(lambda *_: calls.append(1))
    layer = sw.wrap(turned, size=32).default_layer()
    assert (layer.name, layer.in_place) == ("stem", True)
    return len(calls)


def test_each_further_layer_out_of_place_costs_one_run_more():
    assert runs_until_found(14) - runs_until_found(5) == 9  # its swap; the rest is seen in one experiment for all


# -- readings that a shape allows and an experiment refuses -----------------------------------------------------------


@pytest.mark.parametrize(
    ("net", "size", "name", "grid"),
    [
        (sequence_first, (32, 32), "back", (8, 8)),
        (lambda: sequence_first(order=(0, 2, 1)), (32, 32), "back", (8, 8)),
        (queries, (32, 32), "stem", (8, 8)),
        (pooled, (32, 32), "norm", (8, 8)),
        (shuffled, (32, 32), "patch", (8, 8)),
        (attention_maps, (64, 64), "patch", (4, 4)),
        (mixer, (32, 32), "last", (8, 8)),
        (strip, (32, 64), "act", (4, 32)),
        (last_token, (32, 32), "blocks.0", (8, 8)),
    ],
    ids=["tokens first", "tokens last", "queries", "pooled", "windows", "attention", "mixer", "strip", "last token"],
)
def test_the_default_layer_is_one_whose_cells_answer_to_their_place(net, size, name, grid):
    layer = sw.wrap(net(), size=size).default_layer()
    assert (layer.name, layer.form.grid, layer.trunk, layer.in_place) == (name, grid, True, True)


@pytest.mark.parametrize(("order", "layer"), [((1, 0, 2), "mix"), ((0, 2, 1), "turn")])
def test_tokens_in_another_order_of_axes_give_the_same_map(order, layer):
    x = images(2)
    e = sw.explain(sw.wrap(sequence_first(order=order), size=32), x, "grad_cam", 1, layer=layer)
    plain = sw.explain(sw.wrap(sequence_first(order=(0, 1, 2)), size=32), x, "grad_cam", 1, layer=layer)
    assert e.grid == (8, 8)
    torch.testing.assert_close(e.raw, plain.raw)


@pytest.mark.parametrize(
    ("net", "size", "layer"),
    [(queries, 32, "norm"), (pooled, 32, "pool"), (shuffled, 32, "norm")],
    ids=["queries", "pooled", "windows"],
)
def test_a_layer_whose_cells_do_not_answer_to_their_place_is_refused(net, size, layer):
    with pytest.raises(sw.RefusalError, match=f"{layer}.*no grid over the image.*Usable here"):
        sw.explain(sw.wrap(net(), size=size), images(1, size=(size, size)), "grad_cam", layer=layer)


def test_a_map_of_attention_chosen_by_its_name_says_that_nothing_shows_its_place():
    e = sw.explain(sw.wrap(attention_maps(), size=64), images(1, size=(64, 64)), "grad_cam", layer="soft")
    assert any("no experiment showed" in text for text in e.validity["approximations"])


def test_a_class_token_behind_the_grid_does_not_shift_the_cells():
    net = last_token()
    form = sw.wrap(net, size=32).default_layer().form
    assert (form.prefix, form.before) == (1, 64)
    tokens = torch.arange(65.0).view(1, 65, 1)
    assert form.cells(tokens)[0, 0, 7, 7] == 63


@pytest.mark.parametrize("registers", [0, 3])
def test_a_class_token_in_front_of_the_grid_stays_in_front(registers):
    form = sw.wrap(tiny_vit(registers=registers), size=32).default_layer().form
    assert (form.prefix, form.before) == (1 + registers, 0)


def test_a_video_network_that_keeps_time_has_all_its_frames():
    layer = sw.wrap(video()).default_layer(shape=(3, 8, 32, 32))
    assert (layer.name, layer.form.grid, layer.in_place) == ("conv2", (8, 8, 8), True)


@pytest.mark.parametrize("upsample", [True, False])
def test_the_output_of_a_segmentation_network_is_passed_over(upsample):
    model = sw.wrap(segmenter(upsample=upsample), size=32, task="segmentation")
    side = 32 if upsample else 8
    layer = model.default_layer(sw.target.region(torch.ones(side, side), 1))
    assert (layer.name, layer.trunk) == ("mix", True)


def test_transposed_cells_are_not_taken_for_cells():
    class Transposing(nn.Module):
        def forward(self, x):
            return x.transpose(2, 3)

    net = nn.Sequential(nn.Conv2d(3, 8, 4, 4), Transposing(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    layers = by_name(net)
    assert layers["0"].in_place is True
    assert layers["1"].in_place is False
    assert sw.wrap(net, size=32).default_layer().name == "0"
