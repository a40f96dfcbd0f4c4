"""Which layer: named, handed over, misspelled, never reached; chosen when nobody says."""

import pytest
import torch
from torch import nn

import seewhy as sw
from cases.nets import dense
from nets import (
    channels_last,
    dense_like,
    images,
    relu_thrice,
    tiny_cnn,
    tiny_residual,
    tiny_unet,
    tiny_vit,
    with_unused,
)

METHODS = ["grad_cam", "layer_cam", "score_cam"]


# row 7


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("form", ["name", "module", "list of a name", "list of a module"])
def test_a_layer_that_the_forward_never_reaches_is_named_whatever_the_form(method, form):
    net = with_unused()
    layer = {"name": "spare", "module": net.spare, "list of a name": ["spare"]}.get(form, [net.spare])
    with pytest.raises(sw.UsageError, match="Conv2d.*reached" if "module" in form else "spare"):
        sw.explain(sw.wrap(net), images(1), method, 1, layer=layer)


class Either(nn.Module):
    """Takes one of two ways, by the brightness of its image: the other is not reached."""

    def __init__(self):
        super().__init__()
        self.net, self.night = tiny_cnn(), nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x):
        return self.net(self.night(x) if float(x.mean()) < 0.05 else x)


def test_a_layer_that_only_other_images_reach_is_named_and_not_a_blank_map():
    for x, layer in ((images(1), "night"), (images(1) * 0.01, "night")):
        with pytest.raises(sw.SeewhyError, match="night"):
            sw.explain(sw.wrap(Either()), x, "grad_cam", 1, layer=layer)


# row 8


@pytest.mark.parametrize("method", METHODS)
def test_a_name_a_module_and_a_list_of_either_are_the_same_layer(method):
    net, x = tiny_residual(), images(2)
    maps = [
        sw.explain(sw.wrap(net), x, method, 1, layer=layer)
        for layer in ("layer1", net.layer1, ["layer1"], [net.layer1], ("layer1",))
    ]
    assert {e.layer for e in maps} == {"layer1"}
    assert all(torch.equal(e.raw, maps[0].raw) for e in maps)


@pytest.mark.parametrize(
    ("typo", "near"), [("layer_1", "layer1"), ("Layer1", "layer1"), ("layer1.conv", "layer1.conv1"), ("steem", "stem")]
)
@pytest.mark.parametrize("form", ["name", "list"])
def test_a_typo_gets_the_near_names(typo, near, form):
    with pytest.raises(sw.UsageError, match=f"'{typo}'.*did you mean.*'{near}'"):
        sw.explain(sw.wrap(tiny_residual()), images(1), "grad_cam", 1, layer=typo if form == "name" else [typo])


@pytest.mark.parametrize(
    "layer", [nn.Conv2d(3, 3, 3), nn.Conv2d, 3, [], [None], {"layer1"}, ["layer1", 2], b"layer1"], ids=str
)
def test_what_is_no_layer_of_this_network_is_a_usage_error(layer):
    with pytest.raises(sw.UsageError):
        sw.explain(sw.wrap(tiny_residual()), images(1), "grad_cam", 1, layer=layer)


# row 78

NETWORKS = {
    "CNN": (tiny_cnn, "relu2", (8, 8), "conv1"),
    "residual": (tiny_residual, "layer2", (8, 8), "layer1"),
    "dense": (dense_like, "norm", (16, 16), "conv2"),
    "channels last": (channels_last, "mlp", (8, 8), "patch"),
    "transformer": (tiny_vit, "blocks.0", (8, 8), "patch"),
    "U-Net": (lambda: nn.Sequential(tiny_unet(), nn.AdaptiveAvgPool2d(1), nn.Flatten()), "0", (32, 32), "0.bottom"),
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_layer_that_is_chosen_is_recorded_the_same_on_every_run_and_can_be_overridden(kind, tmp_path):
    build, name, grid, other = NETWORKS[kind]
    found = set()
    for seed in range(3):
        torch.manual_seed(seed)
        model = sw.wrap(build().train(seed == 1), size=32, batch_size=1 + seed)
        e = sw.explain(model, images(1 + seed, seed=seed), "grad_cam", [seed % 2] * (1 + seed))
        found.add((e.layer, e.grid))
        assert model.default_layer().name == e.layer
    ((layer, found_grid),) = found
    assert found_grid == grid
    assert layer == name or layer.startswith(f"{name}.")  # a container and its last child are one place
    record = sw.read_explanation(e.save(tmp_path / "run"))
    assert (record.layer, record.grid) == (layer, grid)
    overridden = sw.explain(model, images(1), "grad_cam", 0, layer=other)
    assert overridden.layer == other
    assert not torch.equal(overridden.maps[0], e.maps[0])


@pytest.mark.parametrize("build", [tiny_unet, lambda: dense(channels=1)], ids=["five classes", "one channel"])
def test_a_segmentation_network_is_taken_at_a_layer_that_the_region_depends_on(build):
    mask = torch.zeros(32, 32)
    mask[4:12, 20:28] = 1
    e = sw.explain(sw.wrap(build(), task="segmentation"), images(1), "grad_cam", sw.target.region(mask, 0))
    assert e.layer is not None
    assert e.validity["gradient_norm"][0] > 0


def test_each_of_several_calls_of_one_module_is_a_layer_of_its_own_and_the_last_is_chosen():
    model = sw.wrap(relu_thrice(), size=32)
    assert sw.explain(model, images(1), "grad_cam", 1).layer == "relu#3"
    assert [sw.explain(model, images(1), "grad_cam", 1, layer=f"relu#{k}").grid for k in (1, 2, 3)] == [
        (16,) * 2,
        (8,) * 2,
        (4,) * 2,
    ]


@pytest.mark.parametrize("change", ["head", "layer"])
def test_a_network_that_is_changed_after_its_first_map_is_looked_at_again(change):
    net, x = tiny_cnn(), images(2)
    model = sw.wrap(net)
    sw.explain(model, x, "grad_cam", 1)
    if change == "head":
        net.fc = nn.Linear(12, 9)
        assert sw.explain(model, x, "grad_cam", 8).targets[0]["index"] == 8
    else:
        net.relu2 = nn.Sequential(nn.ReLU(), nn.Conv2d(12, 12, 1), nn.ReLU())
        assert sw.explain(model, x, "grad_cam", 1).layer.startswith("relu2")
