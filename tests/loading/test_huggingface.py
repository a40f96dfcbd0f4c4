"""hf:FOLDER: what lies in a transformers folder, and what is never done with it."""

import json
import os
import sys
import warnings

import pytest
import torch
from torch import nn

import seewhy as sw
from seewhy.errors import MissingExtraError, UsageError
from seewhy.loading.huggingface import _pixels

transformers = pytest.importorskip("transformers")

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
VIT = {**SMALL, "image_size": 32, "patch_size": 8}
ANIMALS = {"0": "cat", "1": "dog", "2": "owl"}
PROCESSOR = {
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.5, 0.6, 0.7],
    "resample": 3,
    "rescale_factor": 1 / 255,
    "size": {"height": 32, "width": 32},
}


def made(folder, kind, config, processor=PROCESSOR):
    """A folder as save_pretrained leaves it; returns the network."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers.utils.logging.disable_progress_bar()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module = kind(config).eval()
        module.save_pretrained(folder)
    if processor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return module


def edited(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def refused(folder, **given):
    with pytest.raises(UsageError) as caught:
        sw.load(f"hf:{folder}", **given)
    return str(caught.value)


@pytest.fixture
def vit(tmp_path):
    made(tmp_path, transformers.ViTForImageClassification, transformers.ViTConfig(**VIT, id2label=ANIMALS))
    return tmp_path


def test_a_classifier_is_loaded_with_its_weights_labels_pixels_and_task(vit, capfd):
    network = transformers.ViTForImageClassification.from_pretrained(vit).eval()
    capfd.readouterr()
    model = sw.load(f"hf:{vit}")
    assert capfd.readouterr() == ("", "")
    assert (model.mean, model.std) == ((0.5, 0.4, 0.3), (0.5, 0.6, 0.7))
    assert (model.size, model.crop, model.framing) == ((32, 32), 1.0, "stretch")
    assert (model.interpolation, model.labels, model.task) == ("bicubic", ["cat", "dog", "owl"], "multiclass")
    x = torch.rand(2, 3, 32, 32)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (model.mean, model.std))
    with torch.no_grad():
        assert torch.allclose(model.predict(x), network((x - mean) / std).logits, atol=1e-5)
    assert sw.explain(model, x, "grad_cam", target="owl").ok == [True, True]


def test_logging_and_progress_of_transformers_are_as_before(vit):
    log = transformers.utils.logging
    log.enable_progress_bar()
    log.set_verbosity_info()
    try:
        sw.load(f"hf:{vit}")
        assert log.is_progress_bar_enabled()
        assert log.get_verbosity() == log.INFO
    finally:
        log.set_verbosity_warning()


@pytest.mark.parametrize(
    ("changes", "task"),
    [
        ({"problem_type": "multi_label_classification"}, "multilabel"),
        ({"problem_type": "regression"}, "regression"),
        ({"problem_type": "single_label_classification"}, "multiclass"),
        ({"id2label": {"0": "age"}, "label2id": {"age": 0}}, "regression"),
    ],
)
def test_the_problem_type_is_the_task(vit, changes, task):
    edited(vit, **changes)
    model = sw.load(f"hf:{vit}", weights="random")
    assert (model.task, model.weights) == (task, "random")


def test_labels_that_are_only_numbers_are_no_labels(tmp_path):
    made(tmp_path, transformers.ViTForImageClassification, transformers.ViTConfig(**VIT, num_labels=4))
    assert sw.load(f"hf:{tmp_path}").labels is None


def test_a_segmentation_network_and_a_detector_are_known_by_their_architecture(tmp_path):
    segformer = transformers.SegformerConfig(
        num_encoder_blocks=2,
        depths=[1, 1],
        sr_ratios=[2, 1],
        hidden_sizes=[8, 16],
        patch_sizes=[3, 3],
        strides=[2, 2],
        num_attention_heads=[1, 1],
        mlp_ratios=[1, 1],
        decoder_hidden_size=8,
        id2label=ANIMALS,
    )
    made(tmp_path / "s", transformers.SegformerForSemanticSegmentation, segformer)
    model = sw.load(f"hf:{tmp_path / 's'}")
    assert (model.task, model.labels) == ("segmentation", ["cat", "dog", "owl"])
    assert model.output_shape((3, 32, 32))[:2] == (1, 3)
    yolos = transformers.YolosConfig(**{**VIT, "image_size": [32, 48]}, num_detection_tokens=5, id2label=ANIMALS)
    edges = {**PROCESSOR, "size": {"shortest_edge": 32, "longest_edge": 48}}
    made(tmp_path / "y", transformers.YolosForObjectDetection, yolos, edges)
    model = sw.load(f"hf:{tmp_path / 'y'}", size=(32, 48))
    assert (model.task, model.framing, model.size) == ("detection", "pad", (32, 48))


@pytest.mark.parametrize("whole", [True, False])
def test_of_a_network_of_pictures_and_texts_the_pictures_half_is_taken(tmp_path, whole):
    vision = {**VIT, "projection_dim": 6}
    if whole:
        text = {**SMALL, "vocab_size": 20, "max_position_embeddings": 8}
        config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=6)
        made(tmp_path, transformers.CLIPModel, config)
    else:
        made(tmp_path, transformers.CLIPVisionModelWithProjection, transformers.CLIPVisionConfig(**vision))
    model = sw.load(f"hf:{tmp_path}")
    assert type(model.module).__name__ == "CLIPVisionModelWithProjection"
    assert model.task == "embedding"
    assert model.module(torch.rand(1, 3, 32, 32)).image_embeds.shape == (1, 6)
    assert ("left out" in model.weights) == whole


def test_weights_of_half_precision_are_computed_in_float32(tmp_path):
    made(tmp_path, transformers.ViTForImageClassification, transformers.ViTConfig(**VIT, num_labels=3)).half()
    network = transformers.ViTForImageClassification.from_pretrained(tmp_path).half()
    network.save_pretrained(tmp_path)
    assert {p.dtype for p in sw.load(f"hf:{tmp_path}").module.parameters()} == {torch.float32}


@pytest.mark.parametrize("prefix", ["", "model.", "module.net."])
def test_a_users_checkpoint_is_found_under_its_prefix_with_its_classes(vit, tmp_path, prefix):
    trained = transformers.ViTForImageClassification(transformers.ViTConfig(**VIT, num_labels=7)).eval()
    state = {prefix + name: tensor for name, tensor in trained.state_dict().items()}
    torch.save(
        {"state_dict": {**state, **({"criterion.weight": torch.ones(7)} if prefix else {})}}, tmp_path / "a.ckpt"
    )
    model = sw.load(f"hf:{vit}", weights=tmp_path / "a.ckpt")
    assert all(
        torch.equal(a, b)
        for a, b in zip(model.module.state_dict().values(), trained.state_dict().values(), strict=True)
    )
    assert model.labels is None
    assert (f"prefix {prefix!r}" in model.weights) == bool(prefix)


def test_a_checkpoint_in_the_names_of_the_hubs_files_is_understood(vit):
    model = sw.load(f"hf:{vit}", weights=vit / "model.safetensors")
    assert model.fingerprint() == sw.load(f"hf:{vit}").fingerprint()


def test_a_checkpoint_that_does_not_fit_is_refused_with_what_is_missing(vit, tmp_path):
    state = transformers.ViTForImageClassification.from_pretrained(vit).state_dict()
    name = next(iter(state))
    torch.save({k: v for k, v in state.items() if k != name} | {"extra.weight": torch.zeros(2)}, tmp_path / "a.pth")
    text = refused(vit, weights=tmp_path / "a.pth")
    assert f"1 entries missing ['{name}']" in text
    assert "1 unexpected ['extra.weight']" in text
    torch.save({k: torch.full_like(v, float("nan")) for k, v in state.items()}, tmp_path / "b.pth")
    assert "not finite" in refused(vit, weights=tmp_path / "b.pth")


def test_a_folder_whose_weights_lack_the_head_is_refused_not_filled_at_random(tmp_path):
    made(tmp_path, transformers.ViTModel, transformers.ViTConfig(**VIT, id2label=ANIMALS))
    edited(tmp_path, architectures=["ViTForImageClassification"])
    assert "entries missing ['classifier.bias', 'classifier.weight']" in refused(tmp_path)


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def test_a_pickle_bomb_is_refused_and_does_not_run(vit):
    state = transformers.ViTForImageClassification.from_pretrained(vit).state_dict()
    (vit / "model.safetensors").unlink()
    torch.save({**state, "bomb": Bomb(vit / "ran")}, vit / "pytorch_model.bin")
    text = refused(vit)
    assert "cannot be loaded safely" in text
    assert "\n" not in text
    assert not (vit / "ran").exists()
    torch.save(dict(state), vit / "pytorch_model.bin")
    assert sw.load(f"hf:{vit}").labels == ["cat", "dog", "owl"]


def test_the_repositorys_own_code_is_never_run(vit):
    (vit / "evil.py").write_text("import pathlib\npathlib.Path(__file__).with_name('ran').mkdir()\nclass Net: pass\n")
    own = {"AutoConfig": "evil.Net", "AutoModelForImageClassification": "evil.Net"}
    edited(vit, auto_map=own)
    assert sw.load(f"hf:{vit}").task == "multiclass"  # transformers has this architecture itself
    edited(vit, auto_map=own, architectures=["EvilNet"], model_type="evil")
    text = refused(vit)
    assert "own code (auto_map), which is never run" in text
    assert "module.path:factory" in text
    assert not (vit / "ran").exists()


def test_a_name_that_is_not_on_disk_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    text = refused("facebook/dinov2-nothing")
    assert "hf download facebook/dinov2-nothing" in text
    assert "neither a folder nor in the cache" in refused("not an id at all!")


def test_an_id_in_the_hubs_cache_is_loaded_without_a_network(vit, tmp_path, monkeypatch):
    import huggingface_hub

    snapshot = tmp_path / "cache" / "models--me--vit" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0" * 40)
    for name in ("config.json", "model.safetensors", "preprocessor_config.json"):
        (snapshot / name).write_bytes((vit / name).read_bytes())
    once = huggingface_hub.snapshot_download
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda *a, **k: once(*a, cache_dir=tmp_path / "cache", **k)
    )
    assert sw.load("hf:me/vit").labels == ["cat", "dog", "owl"]


def test_a_folder_without_the_processors_settings_asks_for_them(vit):
    (vit / "preprocessor_config.json").unlink()
    assert "give mean=, std= and size=" in refused(vit)
    model = sw.load(f"hf:{vit}", mean=(0.5,) * 3, std=(0.5,) * 3)
    assert (model.size, model.mean) == ((32, 32), (0.5,) * 3)
    assert sw.load(f"hf:{vit}", weights="random").mean is None
    (vit / "processor_config.json").write_text(json.dumps({"image_processor": PROCESSOR}))
    assert sw.load(f"hf:{vit}").mean == (0.5, 0.4, 0.3)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"architectures": ["ViTForMaskedImageModeling"]}, "Say task="),
        ({"architectures": ["BertModel"]}, "does not take pictures alone"),
        ({"architectures": None}, "names the architecture None"),
        ({"architecture": "resnet18", "pretrained_cfg": {}}, r"model of timm.*sw\.load\('timm:resnet18', weights="),
        ({"architectures": ["NoSuchNet"]}, "which transformers .* does not have"),
    ],
)
def test_an_architecture_that_cannot_be_explained_is_refused(vit, changes, said):
    edited(vit, **changes)
    with pytest.raises(UsageError, match=said):
        sw.load(f"hf:{vit}", weights="random")


@pytest.mark.parametrize(("content", "said"), [("[", "cannot be read as JSON"), ("[1]", "must hold a JSON object")])
def test_a_damaged_configuration_is_a_usage_error(vit, content, said):
    (vit / "config.json").write_text(content)
    assert said in refused(vit)


def test_a_folder_without_a_configuration_is_a_usage_error(tmp_path):
    assert "has no config.json" in refused(tmp_path)


def test_a_folder_given_without_its_prefix_is_told_apart(vit):
    with pytest.raises(UsageError, match="a folder is 'hf:"):
        sw.load(str(vit))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}, "do_center_crop": True},
            (224, 1, "crop"),
        ),
        ({"size": {"shortest_edge": 256}, "crop_size": 224, "do_center_crop": True}, (224, 0.875, "crop")),
        ({"size": {"height": 256, "width": 256}, "crop_size": 224, "do_center_crop": True}, (224, 0.875, "stretch")),
        ({"size": {"height": 256, "width": 256}, "crop_size": 224, "do_center_crop": False}, (256, 1, "stretch")),
        ({"size": {"height": 640, "width": 480}}, ((640, 480), 1, "stretch")),
        ({"size": {"shortest_edge": 224}, "crop_pct": 0.875}, (224, 0.875, "crop")),
        ({"size": {"shortest_edge": 384}, "crop_pct": 0.875}, (384, 1, "stretch")),
        ({"size": {"shortest_edge": 800, "longest_edge": 1333}}, (800, 1, "crop")),
        ({"size": 224}, (224, 1, "stretch")),
        ({"size": 256, "crop_size": 224, "do_center_crop": True}, (224, 0.875, "crop")),
    ],
)
def test_size_crop_and_framing_are_read_as_the_processor_means_them(tmp_path, changes, expected):
    found = _pixels({**PROCESSOR, **changes}, tmp_path, "multiclass")
    size, crop, framing = expected
    whole = (size, size) if isinstance(size, int) else size
    got = found["size"] if isinstance(found["size"], tuple) else (found["size"],) * 2
    assert (got, found.get("crop", 1.0), found.get("framing", "crop")) == (whole, crop, framing)


@pytest.mark.parametrize(
    ("changes", "white"),  # what a white pixel becomes in the first channel
    [
        ({}, (1 - 0.5) / 0.5),
        ({"do_normalize": False}, 1.0),
        ({"do_rescale": False}, (255 - 0.5) / 0.5),
        ({"rescale_factor": 1 / 127.5, "rescale_offset": True, "do_normalize": False}, 1.0),
        ({"rescale_factor": 1 / 127.5, "rescale_offset": True}, (1 - 0.5) / 0.5),
    ],
)
def test_rescaling_and_normalization_become_one(tmp_path, changes, white):
    found = _pixels({**PROCESSOR, **changes}, tmp_path, "multiclass")
    assert (1 - found["mean"][0]) / found["std"][0] == pytest.approx(white)


def test_a_processor_that_swaps_colors_is_refused(tmp_path):
    with pytest.raises(UsageError, match="blue, green, red"):
        _pixels({**PROCESSOR, "do_flip_channel_order": True}, tmp_path, "multiclass")


def test_a_missing_extra_comes_with_its_install_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'seewhy\[hf\]'"):
        sw.load("hf:anything")


def test_the_global_random_state_is_as_before(vit):
    before = torch.get_rng_state()
    sw.load(f"hf:{vit}", weights="random")
    assert torch.equal(torch.get_rng_state(), before)
    assert isinstance(sw.load(f"hf:{vit}").module, nn.Module)
