"""A small part of benchmarks/coverage.py: one architecture of each kind, found and proven without a word of configuration."""

import pytest
import torch
from torch import nn

import seewhy as sw
from coverage import examine, prove
from layer_nets import strip
from nets import tiny_cnn
from networks import Network, timm_network, torchvision_network, transformers_networks

TIMM = {  # network: kind of its default layer, tokens that are no cells
    "test_efficientnet": ("channels first", 0),
    "test_mambaout": ("channels last", 0),
    "test_vit": ("tokens", 1),
    "test_vit_relpos": ("tokens", 0),
    "test_coatnet": ("channels first", 0),
    "efficientvit_m0": ("channels first", 0),
}
TRANSFORMERS = {
    "ViT": ("tokens", 1),
    "DINOv2 with registers": ("tokens", 5),
    "Swin": ("tokens", 0),
    "CLIP vision": ("tokens", 1),
}


@pytest.mark.parametrize("name", TIMM)
def test_an_architecture_of_timm_is_right_without_configuration(name):
    record = examine(Network("timm", name, lambda: timm_network(name)))
    assert (record["verdict"], record.get("why")) == ("right", "")
    assert (record["kind"], record["prefix"]) == TIMM[name]


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_an_architecture_of_transformers_is_right_without_configuration(name):
    network = next(network for network in transformers_networks() if network.name == name)
    record = examine(network)
    assert (record["verdict"], record.get("why")) == ("right", "")
    assert (record["kind"], record["prefix"]) == TRANSFORMERS[name]


@pytest.mark.parametrize("name", ["squeezenet1_1", "shufflenet_v2_x0_5"])
def test_a_classifier_of_torchvision_is_right_without_configuration(name):
    record = examine(Network("torchvision", name, lambda: torchvision_network(name)))
    assert (record["verdict"], record.get("why")) == ("right", "")


def test_the_proof_sees_a_transposed_grid():
    model = sw.wrap(tiny_cnn(), size=32)
    layer = model.default_layer()
    assert prove(model, layer)[0] == "activations"

    class Transposing(nn.Module):
        def forward(self, x):
            return x.transpose(2, 3)

    model = sw.wrap(nn.Sequential(Transposing(), tiny_cnn()), size=32)
    layer = next(layer for layer in model.layers() if layer.name == "1.relu2")
    assert prove(model, layer) == ("wrong", "quadrants 0, 1, 2, 3 answer as [0, 2, 1, 3] by activations")


def test_a_network_that_crashes_or_does_not_care_for_the_question_is_wrong():
    def crash():
        raise ZeroDivisionError("by a network")

    assert examine(Network("timm", "crash", crash))["why"] == "ZeroDivisionError: by a network"
    same = nn.Sequential(strip(), nn.Linear(5, 10, bias=False))
    nn.init.ones_(same[1].weight)
    record = examine(Network("timm", "same", lambda: sw.wrap(same, size=32)))
    assert record["verdict"] == "wrong"
    assert "does not matter" in record["why"]


def test_a_network_without_a_grid_is_refused_with_a_reason():
    torch.manual_seed(0)
    flat = sw.wrap(nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)), size=32)
    record = examine(Network("timm", "flat", lambda: flat))
    assert record["verdict"] == "refused"
    assert "Use a method on the input" in record["why"]
