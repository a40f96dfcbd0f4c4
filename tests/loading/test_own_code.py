"""module.path:factory: the user's own code, importable or in the current folder."""

import sys

import pytest
import torch

import seewhy as sw
from nets import tiny_cnn
from seewhy.errors import UsageError

CODE = """
import torch
import seewhy as sw
from nets import tiny_cnn, Cnn

SIZE = 32
ready = tiny_cnn()

def net():
    return tiny_cnn()

def wrapped():
    return sw.wrap(tiny_cnn(), mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2), size=32, task="multilabel", labels=list("abcde"))

def failing():
    return {}["weights.pth"]

def mistaken():
    return sw.wrap(tiny_cnn(), size=-1)

def needy(classes):
    return tiny_cnn(classes=classes)

def text():
    return "a network"

class Own(Cnn):
    @staticmethod
    def small():
        return tiny_cnn()
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_nets.py").write_text(CODE)
    (tmp_path / "broken.py").write_text("import nothing_of_that_name")
    (tmp_path / "wrong.py").write_text("1 / 0")
    before = list(sys.path)
    yield tmp_path
    assert sys.path == before
    for name in ("my_nets", "broken", "wrong"):
        sys.modules.pop(name, None)


def refused(specification, **given):
    with pytest.raises(UsageError) as caught:
        sw.load(specification, **given)
    return str(caught.value)


@pytest.mark.parametrize("name", ["net", "ready", "Own", "Own.small"])
def test_a_function_a_network_and_a_class_are_taken(here, name):
    model = sw.load(f"my_nets:{name}", size=32, mean=(0.4, 0.5, 0.6), std=(1, 1, 1), labels=list("abcde"))
    assert (model.size, model.mean, model.name) == ((32, 32), (0.4, 0.5, 0.6), f"my_nets:{name}")
    assert model.predict(torch.rand(2, 3, 32, 32)).shape == (2, 5)
    assert not model.module.training


def test_a_checkpoint_goes_into_the_users_own_network(here):
    trained = tiny_cnn(seed=5)
    torch.save({"state_dict": {f"model.{k}": v for k, v in trained.state_dict().items()}}, "mine.ckpt")
    model = sw.load("my_nets:net", weights="mine.ckpt", size=32)
    assert torch.equal(model.module.fc.weight, trained.fc.weight)
    assert "prefix 'model.'" in model.weights
    assert sw.load("my_nets:net", size=32).weights == "as my_nets:net gives it"
    assert "comes with its own weights" in refused("my_nets:net", weights="random")


def test_a_network_that_is_wrapped_already_keeps_its_settings_and_takes_no_others(here):
    model = sw.load("my_nets:wrapped")
    assert (model.task, model.labels, model.size) == ("multilabel", list("abcde"), (32, 32))
    assert "wrapped already: size, task belongs into its sw.wrap call" in refused(
        "my_nets:wrapped", size=64, task="binary"
    )
    assert "wrapped already: precision" in refused("my_nets:wrapped", precision="bfloat16")


@pytest.mark.parametrize(
    ("specification", "said"),
    [
        ("my_net:net", "no module 'my_net'.*did you mean 'my_nets'"),
        ("my_nets.inner:net", "no module 'my_nets.inner'"),
        ("my_nets:nett", "no 'nett' in my_nets; did you mean 'net'"),
        ("my_nets:Own.smal", "no 'smal' in Own; did you mean 'small'"),
        ("my_nets:failing", r"my_nets:failing\(\) fails: KeyError: 'weights\.pth'"),
        ("my_nets:mistaken", "size is a whole number of at least 1; got -1"),
        ("my_nets:needy", "fails: TypeError: .*classes"),
        ("my_nets:text", r"gave str; expected a torch\.nn\.Module"),
        ("my_nets:SIZE", r"gave int; expected a torch\.nn\.Module"),
        ("broken:net", "importing broken fails: ModuleNotFoundError: .*nothing_of_that_name"),
        ("wrong:net", "importing wrong fails: ZeroDivisionError"),
    ],
)
def test_what_goes_wrong_in_the_users_code_is_said_with_its_cause(here, specification, said):
    with pytest.raises(UsageError, match=said):
        sw.load(specification)


def test_the_users_own_error_is_kept_as_the_cause(here):
    with pytest.raises(UsageError) as caught:
        sw.load("my_nets:failing")
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_known_word_before_the_colon_is_no_module(here):
    (here / "timm.py").write_text("def resnet17(): pass")
    assert "timm has no architecture 'resnet17'" in refused("timm:resnet17")
