import pytest
import torch
from torchvision.models import get_model, get_model_builder, get_model_weights, list_models

import seewhy as sw
from seewhy.errors import UsageError
from seewhy.loading.torchvision_models import AUXILIARY, kept_share

SMALL = "mobilenet_v3_small"


def test_the_settings_are_those_that_the_default_weights_are_described_with():
    model = sw.load("torchvision:swin_t", weights="random")
    assert model.mean == (0.485, 0.456, 0.406)
    assert model.std == (0.229, 0.224, 0.225)
    assert (model.size, model.interpolation, model.framing, model.task) == ((224, 224), "bicubic", "crop", "multiclass")
    assert int(224 / model.crop) == 232
    assert model.labels[281] == "tabby"


@pytest.mark.parametrize("size", [224, 232, 299, 384, 512])
def test_the_crop_gives_the_resized_length_back_to_the_pixel(size):
    assert [resized for resized in range(size, 900) if int(size / kept_share(size, resized)) != resized] == []


def test_a_segmentation_network_is_loaded_with_its_task_and_no_backbone_is_fetched(monkeypatch):
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", None)  # a download would be an error
    model = sw.load("torchvision:lraspp_mobilenet_v3_large", weights="random", size=64)
    assert (model.task, len(model.labels), model.size, model.crop) == ("segmentation", 21, (64, 64), 1.0)
    assert model.labels[8] == "cat"
    assert model.output_shape((3, 64, 64)) == (1, 21, 64, 64)


@pytest.mark.parametrize(
    ("name", "size", "framing"),
    [("fasterrcnn_mobilenet_v3_large_320_fpn", 320, "pad"), ("ssdlite320_mobilenet_v3_large", 320, "stretch")],
)
def test_a_detector_normalizes_and_resizes_inside_and_is_shown_the_whole_photo(name, size, framing):
    model = sw.load(f"torchvision:{name}", weights="random")
    assert (model.task, model.mean, model.size, model.framing) == ("detection", None, (size, size), framing)
    assert model.labels[:2] == ["__background__", "person"]
    seen = []
    model.module.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[-2:]))
    model.module(torch.rand(1, 3, size, size))
    assert seen == [(size, size)]


@pytest.mark.parametrize(
    ("name", "classes"),
    [(SMALL, 1000), (SMALL, 7), ("lraspp_mobilenet_v3_large", 3), ("ssdlite320_mobilenet_v3_large", 4)],
)
def test_a_checkpoint_brings_its_number_of_classes_and_the_labels_only_where_they_fit(tmp_path, name, classes):
    backbone = {} if name == SMALL else {"weights_backbone": None}
    trained = get_model(name, weights=None, num_classes=classes, **backbone)
    torch.save({"model": {f"module.{k}": v for k, v in trained.state_dict().items()}}, tmp_path / "a.pth")
    model = sw.load(f"torchvision:{name}", weights=tmp_path / "a.pth")
    assert (model.labels is None) == (classes != 1000)
    ours = model.module.state_dict()
    assert all(torch.equal(ours[k], v) for k, v in trained.state_dict().items())


@pytest.mark.parametrize("name", ["googlenet", "deeplabv3_mobilenet_v3_large"])
def test_heads_that_only_training_uses_may_be_in_the_file_or_not(tmp_path, name):
    extra = {"weights_backbone": None, "aux_loss": True} if name.startswith("deep") else {"init_weights": False}
    state = get_model(name, weights=None, **extra).state_dict()
    assert any(head in entry for entry in state for head in AUXILIARY)
    for kept in (state, {k: v for k, v in state.items() if k.split(".")[0] not in AUXILIARY}):
        torch.save(kept, tmp_path / "a.pth")
        model = sw.load(f"torchvision:{name}", weights=tmp_path / "a.pth")
        assert not [entry for entry in model.module.state_dict() if entry.split(".")[0] in AUXILIARY]
    assert getattr(model.module, "transform_input", True)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("resnet5o", "did you mean 'resnet50'"),
        ("raft_small", "family optical_flow"),
        ("r3d_18", "family video"),
        ("quantized_resnet18", "family quantization"),
        ("resnet18", r"nothing is downloaded: weights='path\.pth'"),
    ],
)
def test_what_torchvision_has_not_or_does_not_explain_is_a_usage_error(name, said):
    with pytest.raises(UsageError, match=said):
        sw.load(f"torchvision:{name}")


def test_every_usable_architecture_describes_itself_in_the_words_that_are_read():
    for name in list_models():
        family = get_model_builder(name).__module__.split(".")[2]
        if family in ("video", "optical_flow", "quantization"):
            continue
        described = get_model_weights(name).DEFAULT
        assert described.meta["categories"]
        if family != "detection":
            transforms = described.transforms()
            assert transforms.resize_size[0] > 0
            assert transforms.interpolation.value in ("bilinear", "bicubic")
            assert len(transforms.mean) == len(transforms.std) == 3
