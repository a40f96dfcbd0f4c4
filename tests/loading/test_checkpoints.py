"""A user's checkpoint, as training leaves it, into a network: found, or refused with what does not fit."""

import argparse
from pathlib import Path

import pytest
import timm
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import seewhy as sw
from nets import tiny_cnn
from seewhy.errors import UsageError
from seewhy.loading.checkpoint import build_and_fill, fill, read_checkpoint

TINY = "timm:test_resnet"


def network(seed=0, classes=5):
    return tiny_cnn(classes=classes, seed=seed)


@pytest.fixture
def trained():
    return network(seed=7)


def saved(folder, content, name="a.pth") -> Path:
    torch.save(content, folder / name)
    return folder / name


def filled(path) -> tuple[nn.Module, str]:
    module = network()
    return module, fill(module, read_checkpoint(path))


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def prefixed(state, prefix):
    return {prefix + name: tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    "wrapped",
    [
        nn.DataParallel,
        lambda net: nn.ModuleDict({"_orig_mod": net}),
        AveragedModel,
        lambda net: nn.DataParallel(nn.ModuleDict({"_orig_mod": net})),
        lambda net: nn.ModuleDict({"backbone": nn.ModuleDict({"net": net})}),
    ],
    ids=["module.", "_orig_mod.", "module. and a counter", "module._orig_mod.", "backbone.net."],
)
def test_the_prefix_of_a_wrapper_is_found_whatever_its_name(tmp_path, trained, wrapped):
    module, origin = filled(saved(tmp_path, wrapped(trained).state_dict()))
    assert same(module, trained)
    assert "prefix" in origin


@pytest.mark.parametrize(
    "part", ["state_dict", "model", "model_state_dict", "net", "state_dict_ema", "model_ema", "ema"]
)
def test_the_part_of_a_training_file_is_found_and_named(tmp_path, trained, part):
    content = {"epoch": torch.tensor(3), part: trained.state_dict(), "optimizer": {"state": {0: torch.ones(2)}}}
    module, origin = filled(saved(tmp_path, content))
    assert same(module, trained)
    assert f"its part {part!r}" in origin


def test_a_part_inside_a_part_is_found(tmp_path, trained):
    path = saved(tmp_path, {"model": {"state_dict": prefixed(trained.state_dict(), "module.")}})
    module, origin = filled(path)
    assert same(module, trained)
    assert "'model.state_dict'" in origin


def test_a_file_that_holds_itself_has_an_end(tmp_path, trained):
    content = {"net": trained.state_dict()}
    content["model"] = content
    module, origin = filled(saved(tmp_path, content))
    assert same(module, trained)
    assert "its part 'model.model" in origin or "its part 'net'" in origin


def test_plain_weights_come_before_averaged_ones_and_the_other_part_is_named(tmp_path, trained):
    average = network(seed=9)
    content = {"model_ema": prefixed(average.state_dict(), "module."), "state_dict": trained.state_dict()}
    module, origin = filled(saved(tmp_path, content))
    assert same(module, trained)
    assert "not taken, but fits as well: 'model_ema'" in origin


def test_a_lightning_checkpoint_with_entries_beside_the_model_is_loaded_and_they_are_named(tmp_path, trained):
    state = prefixed(trained.state_dict(), "model.") | {
        "criterion.weight": torch.ones(5),
        "metric.total": torch.ones(()),
    }
    content = {"epoch": 1, "state_dict": state, "pytorch-lightning_version": "2.4", "hyper_parameters": {"lr": 0.1}}
    module, origin = filled(saved(tmp_path, content, "last.ckpt"))
    assert same(module, trained)
    assert "prefix 'model.'" in origin
    assert "left out: 2 entries without it ['criterion.weight', 'metric.total']" in origin


def test_a_lightning_checkpoint_with_objects_of_code_is_refused_with_the_way_out(tmp_path, trained):
    content = {"state_dict": trained.state_dict(), "hyper_parameters": argparse.Namespace(lr=0.1)}
    path = saved(tmp_path, content, "last.ckpt")
    with pytest.raises(UsageError, match=r"argparse\.Namespace") as caught:
        read_checkpoint(path)
    assert "torch.save(torch.load(path, weights_only=False)['state_dict'], 'weights.pth')" in str(caught.value)


def test_two_networks_that_fit_are_refused_by_their_prefixes(tmp_path, trained):
    state = prefixed(trained.state_dict(), "student.") | prefixed(network(seed=9).state_dict(), "teacher.")
    with pytest.raises(UsageError, match=r"2 networks that fit, under \['student\.', 'teacher\.'\]"):
        filled(saved(tmp_path, state))


def test_a_prefix_is_not_taken_where_a_shape_differs(tmp_path, trained):
    state = prefixed(trained.state_dict(), "model.")
    state["model.conv2.weight"] = torch.zeros(12, 8, 5, 5)
    with pytest.raises(UsageError, match=r"conv2\.weight is \(12, 8, 5, 5\), expected \(12, 8, 3, 3\)") as caught:
        filled(saved(tmp_path, state))
    assert "without their prefix 'model.'" in str(caught.value)


def test_missing_and_unexpected_entries_under_a_prefix_are_counted_and_listed(tmp_path, trained):
    state = prefixed(trained.state_dict(), "module.")
    del state["module.bn2.bias"]
    state["module.surprise"] = torch.zeros(1)
    with pytest.raises(UsageError, match=r"1 entries missing \['bn2\.bias'\], 1 unexpected \['surprise'\]"):
        filled(saved(tmp_path, state))


def test_a_deeper_network_under_a_prefix_does_not_fit_its_first_part(tmp_path, trained):
    state = prefixed(trained.state_dict(), "module.") | {"module.conv3.weight": torch.zeros(4, 12, 3, 3)}
    with pytest.raises(UsageError, match=r"1 unexpected \['conv3\.weight'\]"):
        filled(saved(tmp_path, state))


def test_a_file_from_before_the_batch_counter_is_loaded(tmp_path, trained):
    state = {name: tensor for name, tensor in trained.state_dict().items() if "num_batches_tracked" not in name}
    assert len(state) < len(trained.state_dict())
    module, _ = filled(saved(tmp_path, state))
    assert torch.equal(module.fc.weight, trained.fc.weight)


def test_values_beside_the_network_may_be_anything_but_its_own_must_be_finite(tmp_path, trained):
    state = prefixed(trained.state_dict(), "model.") | {"best.loss": torch.tensor(float("inf"))}
    assert same(filled(saved(tmp_path, state))[0], trained)
    state["model.fc.bias"] = torch.full((5,), float("nan"))
    with pytest.raises(UsageError, match=r"not finite .* \['fc\.bias'\]"):
        filled(saved(tmp_path, state))


def test_a_network_that_does_not_fit_is_left_as_it_was(tmp_path, trained):
    state = dict(trained.state_dict())
    del state["fc.bias"]
    module, before = network(), network()
    with pytest.raises(UsageError):
        fill(module, read_checkpoint(saved(tmp_path, state)))
    assert same(module, before)


@pytest.mark.parametrize("prefix", ["", "model."])
def test_the_classes_follow_the_checkpoint_also_under_a_prefix(tmp_path, prefix):
    other = timm.create_model("test_resnet", num_classes=7).state_dict()
    path = saved(
        tmp_path, {"state_dict": prefixed(other, prefix) | {"criterion.weight": torch.ones(7)} if prefix else other}
    )
    model = sw.load(TINY, weights=path, labels=list("abcdefg"))
    assert model.predict(torch.rand(1, 3, 160, 160)).shape == (1, 7)
    assert model.weights.startswith(str(path))


def test_a_classifier_whose_parts_tell_different_classes_is_refused(tmp_path):
    state = network(classes=7).state_dict() | {"fc.bias": torch.zeros(6)}
    with pytest.raises(UsageError, match="wrong shape"):
        build_and_fill(lambda classes: network(classes=classes or 5), 5, saved(tmp_path, state))


def test_a_whole_network_given_as_weights_is_sent_where_it_belongs(tmp_path, recwarn):
    torch.jit.save(torch.jit.trace(network(), torch.rand(1, 3, 32, 32)), tmp_path / "a.pt")
    recwarn.clear()
    with pytest.raises(UsageError, match=r"is a whole network \(TorchScript\), not weights: .*sw\.load\("):
        read_checkpoint(tmp_path / "a.pt")


def test_where_the_weights_came_from_is_part_of_a_maps_record(tmp_path):
    path = saved(tmp_path, {"model": timm.create_model("test_resnet").state_dict()})
    e = sw.explain(sw.load(TINY, weights=path), torch.rand(1, 3, 160, 160), "gradient")
    assert e.provenance["weights"] == f"{path}, its part 'model'"
    assert sw.load(TINY, weights="random").weights == "random"
