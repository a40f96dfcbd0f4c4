"""What autograd's graph says of layers: whether any path from the output to the input leads around them."""

import pytest
import torch
from torch import nn

from nets import checkpointed, cut, images, tiny_cnn, tiny_inplace, tiny_residual, tiny_unet, tiny_vit, two_branches
from seewhy import capture


def told(net, x=None):
    x = images(2) if x is None else x
    with capture.guard(net):
        sites = [site for site, _, _ in capture.trace(net, lambda: net(x))[0]]
        return capture.on_every_path(net, lambda: net(x), sites)


def test_every_layer_of_a_chain_lies_on_every_path():
    assert set(told(tiny_cnn()).values()) == {True}


def test_a_residual_branch_does_not_and_the_sum_behind_it_does():
    found = told(tiny_residual())
    assert [name for name, on in found.items() if on] == [
        "stem",
        "layer1.relu#2",
        "layer1",
        "layer2.relu#2",
        "layer2",
        "fc",
    ]
    assert found["layer1.conv2"] is found["layer1.down"] is False


def test_attention_is_led_around_and_blocks_are_not():
    found = told(tiny_vit())
    assert found["blocks.0"] is found["blocks.1"] is found["patch"] is True
    assert found["blocks.0.attn"] is found["blocks.0.attn.qkv"] is found["blocks.0.mlp"] is False


def test_the_bottleneck_of_a_u_net_is_led_around():
    found = told(tiny_unet())
    assert (found["bottom"], found["up2"], found["out"]) == (False, False, True)


def test_a_branch_beside_the_first_layer_is_left_to_the_experiment():
    found = told(two_branches())
    assert (found["left"], found["left_head"]) == (True, True)
    assert not {"right", "right_head"} & found.keys()


def test_a_network_without_layers_has_nothing_to_tell():
    net = nn.Flatten()
    assert capture.on_every_path(net, lambda: net(images(2)), []) == {}


def test_operations_in_place_do_not_hide_a_way_around():
    found = told(tiny_inplace())
    assert found["relu1"] is True
    assert found["bn2"] is not True  # a shortcut is added to it in place


@pytest.mark.parametrize("net", [lambda: cut("cutter"), lambda: cut("forward")])
def test_where_nothing_leads_back_the_graph_tells_nothing(net):
    assert told(net()) == {}


def test_what_is_detached_on_the_way_is_left_to_the_experiment():
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.one, self.two = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)

        def forward(self, x):
            x = self.stem(x)
            return (self.one(x).detach() + self.two(x)).mean((2, 3))

    assert told(Half()) == {"stem": True, "two": True}


def test_a_checkpointed_block_is_seen_from_outside():
    found = told(checkpointed())
    assert found["relu2"] is True
    assert found.get("block", True) is True


def test_a_hundred_layers_with_shortcuts_have_more_paths_than_a_float_can_count():
    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(1100)])

        def forward(self, x):
            for layer in self.layers:
                x = x + layer(x).tanh()
            return x

    found = told(Deep(), torch.rand(2, 4))
    assert len(found) == 1100
    assert [name for name, on in found.items() if on] == ["layers.0"]  # where paths start


def test_the_network_is_left_as_it_was():
    net = tiny_residual()
    flags = [p.requires_grad for p in net.parameters()]
    told(net)
    assert [p.requires_grad for p in net.parameters()] == flags
    assert all(p.grad is None for p in net.parameters())
    assert not any(module._forward_hooks for module in net.modules())
