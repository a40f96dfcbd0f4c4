"""file.pt2 (torch.export) and file.pt (TorchScript): what they answer, and what is refused."""

import json
import os
import warnings
import zipfile
from io import BytesIO
from pathlib import Path

import pytest
import torch
from torch import nn

import seewhy as sw
from nets import Cnn, DropoutAlways, seeded, tiny_cnn
from seewhy.errors import RefusalError, UsageError

METHODS = {"gradient": {}, "integrated_gradients": {"rule": "midpoint", "steps": 4}, "occlusion": {"patch": 16}}


def exported(path: Path, module: nn.Module, rows: int | None, shape=(3, 32, 32)) -> Path:
    dynamic = ({0: torch.export.Dim("batch", min=1, max=64)},) if rows is None else None
    program = torch.export.export(module, (torch.rand(rows or 2, *shape),), dynamic_shapes=dynamic)
    torch.export.save(program, path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("programs")
    net = tiny_cnn()
    exported(path / "any.pt2", net, None)
    exported(path / "one.pt2", net, 1)
    exported(path / "eight.pt2", net, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(net).save(path / "scripted.pt")
        torch.jit.trace(net, torch.rand(1, 3, 32, 32)).save(path / "traced.ts")
    torch.save(net.state_dict(), path / "state.pt")
    torch.save(net, path / "whole.pt")
    return path


def refused(path, **given):
    with pytest.raises(UsageError) as caught:
        sw.load(str(path), **given)
    return str(caught.value)


def images(n=3):
    return torch.rand(n, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["any.pt2", "one.pt2", "scripted.pt", "traced.ts"])
def test_input_and_black_box_methods_give_the_eager_networks_maps(folder, name, method):
    given = {"mean": (0.5, 0.5, 0.5), "std": (0.2, 0.3, 0.4), "size": 32}
    model, eager = sw.load(str(folder / name), **given), sw.wrap(tiny_cnn(), **given)
    ours, theirs = (sw.explain(m, images(), method, target=2, **METHODS[method]) for m in (model, eager))
    assert torch.allclose(ours.raw, theirs.raw, atol=1e-6 * float(theirs.raw.abs().max()) + 1e-7)
    assert ours.ok == theirs.ok == [True] * 3


@pytest.mark.parametrize("name", ["any.pt2", "scripted.pt", "traced.ts"])
def test_a_layer_method_is_refused(folder, name):
    with pytest.raises(RefusalError, match="gradient"):
        sw.explain(sw.load(str(folder / name), size=32), images(), "grad_cam")


def test_an_exported_program_tells_its_input_size_and_its_rows(folder, tmp_path):
    assert sw.load(str(folder / "any.pt2")).size == (32, 32)
    assert sw.load(str(folder / "any.pt2"), batch_size=4).batch_size == 4
    assert sw.load(str(folder / "one.pt2")).batch_size == 1
    assert "one image at a time; got batch_size=4" in refused(folder / "one.pt2", batch_size=4)
    assert "exactly 8 images at once" in refused(folder / "eight.pt2")
    gray = sw.load(str(exported(tmp_path / "gray.pt2", seeded(Cnn)(channels=1), None, (1, 24, 40))))
    assert gray.input_shape() == (1, 24, 40)
    assert gray.predict(torch.rand(2, 1, 24, 40)).shape == (2, 5)


def test_a_scripted_network_without_a_size_takes_tensors_and_asks_for_it_where_photos_come(folder, tmp_path):
    model = sw.load(str(folder / "scripted.pt"))
    assert sw.explain(model, images(), "gradient").ok == [True] * 3
    with pytest.raises(UsageError, match="--size"):
        model.input_shape()


def test_a_program_that_was_exported_in_training_mode_is_refused(tmp_path):
    assert "training mode (dropout" in refused(exported(tmp_path / "a.pt2", DropoutAlways().eval(), None))


def test_a_program_with_two_inputs_is_refused_with_their_shapes(tmp_path):
    class Two(nn.Module):
        def forward(self, x, y):
            return (x + y).mean((2, 3))

    program = torch.export.export(Two(), (torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8)))
    torch.export.save(program, tmp_path / "a.pt2")
    assert "takes 2 inputs [(1, 3, 8, 8), (1, 3, 8, 8)]" in refused(tmp_path / "a.pt2")


@pytest.mark.parametrize("name", ["state.pt", "whole.pt"])
def test_weights_and_pickled_modules_given_as_a_network_are_refused_with_the_way_out(folder, name):
    text = refused(folder / name)
    assert f"sw.load('timm:NAME', weights={name!r})" in text
    assert "state_dict()" in text


def test_a_checkpoint_goes_into_a_program(folder, tmp_path):
    trained = tiny_cnn(seed=5)
    torch.save(nn.DataParallel(trained).state_dict(), tmp_path / "mine.pth")
    for name in ("any.pt2", "scripted.pt"):
        model = sw.load(str(folder / name), weights=tmp_path / "mine.pth", size=32)
        assert torch.allclose(model.predict(images()), sw.wrap(trained).predict(images()), atol=1e-5)


@pytest.mark.parametrize("suffix", ["pt2", "pt", "ts", "jit"])
@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04", bytes(500)], ids=repr)
def test_a_file_that_is_no_network_is_one_line(tmp_path, suffix, content):
    (tmp_path / f"a.{suffix}").write_bytes(content)
    text = refused(tmp_path / f"a.{suffix}")
    assert f"a.{suffix}" in text
    assert "\n" not in text


@pytest.mark.parametrize("name", ["any.pt2", "scripted.pt"])
def test_a_truncated_or_hollow_archive_is_one_line(folder, tmp_path, name, caplog):
    content = (folder / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    assert "\n" not in refused(tmp_path / name)
    with zipfile.ZipFile(folder / name) as whole, zipfile.ZipFile(tmp_path / name, "w") as hollow:
        for member in whole.namelist():
            if "weight" not in member and not member.endswith("data/0"):
                hollow.writestr(member, whole.read(member))
    assert "cannot be loaded as" in refused(tmp_path / name)
    assert not caplog.records


def test_a_missing_file_names_a_near_one(folder):
    assert "no such model file" in refused(folder / "anny.pt2")
    assert "Did you mean 'any.pt2'" in refused(folder / "anny.pt2")


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("place", ["sample inputs", "a constant"])
def test_a_pickle_bomb_inside_a_program_is_refused_and_does_not_run(folder, tmp_path, place):
    bomb = BytesIO()
    torch.save({"x": Bomb(tmp_path / "ran")}, bomb)
    config = {
        "config": {"x": {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}}
    }
    with zipfile.ZipFile(folder / "any.pt2") as whole, zipfile.ZipFile(tmp_path / "a.pt2", "w") as armed:
        for member in whole.namelist():
            content = whole.read(member)
            if place == "sample inputs" and "sample_inputs" in member:
                content = bomb.getvalue()
            if place == "a constant" and member.endswith("constants_config.json"):
                content = json.dumps(config).encode()
                armed.writestr(member.replace("model_constants_config.json", "opaque_obj_0"), bomb.getvalue())
            armed.writestr(member, content)
    assert "a.pt2" in refused(tmp_path / "a.pt2")
    assert not (tmp_path / "ran").exists()
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ
