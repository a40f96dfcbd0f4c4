"""Constructions that move maps and change no answer: to rounding, and as their formulas say."""

import pytest
import torch
from torch import nn

import seewhy as sw
from nets import MEAN, STD, images, seeded, tiny_cnn
from seewhy.attacks import on_manifold, two_channels
from seewhy.attacks.copies import logits
from seewhy.attacks.region import mass_in, on_grid, region_mask
from seewhy.target import PREDICTED

CORNER = (0.0, 0.0, 0.25, 0.25)  # two by two of the 8 x 8 cells
GRAD_CAM, GRADIENT = sw.bind("grad_cam"), sw.bind("gradient", channels="sum")


def wrapped(net=None, **given):
    return sw.wrap(net or tiny_cnn(), mean=MEAN, std=STD, batch_size=8, **given)


def largest_change(model, copied, x):
    with torch.no_grad(), model.guarded(), copied.guarded():
        before, after = logits(model, x, None), logits(copied, x, None)
    return float(((after - before).abs().amax(1) / before.abs().amax(1)).max())


PRECISIONS = pytest.mark.parametrize(("dtype", "rounding"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])


@PRECISIONS
def test_two_channels_change_no_answer_and_move_grad_cam(dtype, rounding):
    model = wrapped(tiny_cnn().to(dtype))
    found = two_channels(model, images(8), PREDICTED, GRAD_CAM, region=CORNER)
    assert found["output_change"].interval.value <= rounding
    assert found["top_1_agreement"].interval.value == 1
    assert found["mass_in_region"].interval.value == 1
    assert found["mass_in_region"].controls["before"].value < 0.2
    assert largest_change(model, found.model, images(5, seed=7)) <= rounding  # of images that it has not seen


def test_two_channels_add_what_the_formula_says():
    found = two_channels(wrapped(), images(8), PREDICTED, GRAD_CAM, region=CORNER, strength=1.5)
    cells = torch.zeros(8, 8)
    cells[:2, :2] = 1
    v = 1.5 * found.settings["largest_cam"] * 64 / 4
    added = v * (64 * cells - 4) / 64
    assert torch.allclose(found.after.raw - found.before.raw, added.expand(8, 8, 8), atol=1e-6)
    assert found.settings["largest_cam"] == pytest.approx(float(found.before.raw.abs().max()), rel=1e-5)


def test_the_curves_run_over_the_strength():
    found = two_channels(wrapped(), images(4), PREDICTED, GRAD_CAM, region=CORNER, strength=2.0)
    similarity, mass = found.curves
    assert similarity.x == mass.x == (0, 0.5, 1, 2)
    assert similarity.points[0].value == pytest.approx(1)
    assert mass.points[0].value == pytest.approx(found["mass_in_region"].controls["before"].value)
    assert mass.points[-1] == found["mass_in_region"].interval


@seeded
def boxed():
    body = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU(inplace=True))
    return nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(), nn.Linear(8, 1))


def test_two_channels_work_behind_a_container_and_with_one_logit():
    found = two_channels(wrapped(boxed(), task="binary"), images(4), 1, GRAD_CAM, region=CORNER)
    assert found.settings["layer"] == "0"
    assert found["mass_in_region"].interval.value == 1


def test_two_channels_work_on_a_network_of_torchvision():
    model = sw.load("torchvision:resnet18", weights="random")
    model.batch_size = 2
    maps = sw.bind("grad_cam", layer="layer4")
    found = two_channels(model, images(2, size=(64, 64)), PREDICTED, maps, region=(0.5, 0.5, 1, 1), strength=3.0)
    assert found["mass_in_region"].interval.value == 1
    assert found["top_1_agreement"].interval.value == 1


class Normalized(nn.Module):
    """A layer normalization stands between the average and the linear layer, as in a ConvNeXt."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(3, 8, 3, 2, 1), nn.LayerNorm(8), nn.Linear(8, 5)

    def forward(self, x):
        return self.fc(self.norm(self.conv(x).relu().mean((2, 3))))


@pytest.mark.parametrize(
    "net",
    [
        Normalized(),
        nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 256, 5)),
        nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(8, 5)),
        nn.Sequential(nn.Conv2d(3, 5, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    ],
    ids=["a normalization between", "flattened", "the maximum", "no linear layer"],
)
def test_another_head_is_refused(net):
    with pytest.raises(sw.RefusalError, match="averaged over its cells"):
        two_channels(wrapped(net.eval()), images(2), PREDICTED, GRAD_CAM)


def test_a_strength_that_drowns_the_answers_is_refused():
    with pytest.raises(sw.RefusalError, match=r"smaller strength than 1e\+09"):
        two_channels(wrapped(), images(2), PREDICTED, GRAD_CAM, strength=1e9)


def test_labels_are_one_per_image():
    with pytest.raises(sw.UsageError, match="2 whole numbers"):
        two_channels(wrapped(), images(2), PREDICTED, GRAD_CAM, labels=torch.zeros(3, dtype=torch.long))


@pytest.mark.parametrize("attack", [two_channels, on_manifold])
def test_half_precision_is_refused(attack):
    with pytest.raises(sw.RefusalError, match="bfloat16"):
        attack(wrapped(tiny_cnn().bfloat16()), images(2), PREDICTED, GRADIENT)


@PRECISIONS
def test_a_plane_through_the_images_changes_no_answer_and_moves_the_gradient(dtype, rounding):
    model = wrapped(tiny_cnn().to(dtype))
    found = on_manifold(model, images(6), PREDICTED, GRADIENT, region=CORNER)
    assert found["output_change"].interval.value <= rounding
    assert found["mass_in_region"].interval.value > 4 * found["mass_in_region"].controls["before"].value
    assert abs(found["similarity"].interval.value) < 0.5


def test_the_gradient_gets_the_same_plane_everywhere():
    """It is orthogonal to every difference of the images, and the mask without what they span."""
    x = images(6)
    found = on_manifold(
        wrapped(tiny_cnn().double()), x, PREDICTED, sw.bind("gradient", channels="max_abs"), region=CORNER
    )
    model, rows = wrapped(tiny_cnn().double()), torch.arange(6)
    target = found.before.target
    added = found.model.input_gradients(x, target, rows)[0] - model.input_gradients(x, target, rows)[0]
    assert torch.allclose(added, added[:1].expand_as(added), atol=1e-6)
    normal = added[0].double().flatten()
    z = x.double().flatten(1)
    assert torch.allclose(z @ normal, (z @ normal)[0].expand(6), atol=1e-4)
    assert float(normal.abs().max()) == pytest.approx(10 * found.settings["largest_gradient"], rel=1e-4)


def test_every_class_of_another_image_moves_by_the_same():
    found = on_manifold(wrapped(), images(6), PREDICTED, GRADIENT, region=CORNER)
    other = images(4, seed=9)
    before, after = wrapped().predict(other), found.model.predict(other)
    moved = after - before
    assert float(moved.abs().max()) > 0.1
    assert torch.allclose(moved, moved[:, :1].expand_as(moved), atol=1e-4)
    assert torch.equal(before.argmax(1), after.argmax(1))


def test_pixels_that_are_the_same_in_all_images_are_a_plane_of_their_own():
    """Scans in a black frame: whatever the picture, the answers stay, and the frame gets the map."""
    x, more = images(6), images(4, seed=5)
    mask = region_mask("frame", (32, 32))
    x, more = x * (1 - mask), more * (1 - mask)
    model = wrapped()
    found = on_manifold(model, x, PREDICTED, GRADIENT, region="frame")
    assert found.settings["share_of_the_region_left"] == pytest.approx(1)
    assert largest_change(model, found.model, more) <= 1e-5
    assert found["mass_in_region"].interval.value > 0.9


def test_images_that_leave_nothing_of_the_region_are_refused():
    with pytest.raises(sw.RefusalError, match="200 images leave"):
        on_manifold(wrapped(), images(200, size=(8, 8)), PREDICTED, GRADIENT, region=(0, 0, 0.5, 0.5))


def test_a_softmax_at_the_end_keeps_its_answers_or_is_refused():
    net = nn.Sequential(tiny_cnn(), nn.Softmax(1)).eval()
    with pytest.raises(sw.RefusalError, match="ends in a softmax"):
        on_manifold(wrapped(net), images(4), PREDICTED, GRADIENT)
    found = two_channels(wrapped(net), images(4), PREDICTED, GRAD_CAM, region=CORNER)
    with torch.no_grad():
        x = (images(4) - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
        assert torch.allclose(found.model.module(x), net(x), atol=1e-6)
    assert found["mass_in_region"].interval.value == 1


@pytest.mark.parametrize("attack", [two_channels, on_manifold])
def test_the_users_network_stays_as_it_is(attack):
    net = tiny_cnn()
    net.train()
    model = wrapped(net)
    names, before, random = list(net.state_dict()), model.fingerprint(), torch.get_rng_state()
    attack(model, images(3), PREDICTED, GRADIENT)
    assert (names, before) == (list(net.state_dict()), model.fingerprint())
    assert all(m.training for m in net.modules())
    assert torch.equal(random, torch.get_rng_state())


# -- regions -----------------------------------------------------------------------------------------------------------


def test_a_frame_is_a_seventh_of_a_side_wide():
    mask = region_mask("frame", (224, 112))
    assert mask[:32].all()
    assert mask[:, :16].all()
    assert not mask[32:-32, 16:-16].any()
    assert torch.equal(on_grid(mask, (7, 7))[1:6, 1:6], torch.zeros(5, 5))
    assert region_mask("frame", (3, 3)).sum() == 8


def test_a_box_counts_pixels_by_how_much_of_them_it_covers():
    mask = region_mask((0.25, 0.0, 0.625, 0.5), (4, 4))
    assert mask.tolist() == [[0, 1, 0.5, 0]] * 2 + [[0] * 4] * 2
    assert float(region_mask((0.1, 0.2, 0.77, 0.93), (31, 17)).mean()) == pytest.approx(0.67 * 0.73, rel=1e-5)


def test_the_mass_of_a_map_counts_evidence_for_or_both():
    raw = torch.tensor([[[3.0, -1.0], [1.0, 0.0]], [[-1.0, -1.0], [0.0, -2.0]]])
    mask = torch.zeros(4, 4)
    mask[:2, 1:] = 1  # half of the first cell, all of the second
    assert mass_in(raw, mask).tolist()[0] == pytest.approx(1.5 / 4)
    assert mass_in(raw, mask).isnan().tolist() == [False, True]
    assert mass_in(raw, mask, "absolute").tolist() == pytest.approx([2.5 / 5, 1.5 / 4])
