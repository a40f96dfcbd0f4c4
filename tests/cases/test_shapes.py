"""Shapes beyond one RGB square: wide, tall, one pixel, one and twelve channels, signals, volumes and video."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import seewhy as sw
from cases.nets import QUICK
from nets import images, linear, seeded, signal, tiny_cnn, volume

INPUT = ["gradient", "smooth_grad", "integrated_gradients", "occlusion", "rise", "lime"]
LAYER = ["grad_cam", "score_cam", "layer_cam"]
each_method = pytest.mark.parametrize("method", [*INPUT, *LAYER])
each_kind = pytest.mark.parametrize("method", ["gradient", "occlusion", "integrated_gradients", "grad_cam"])


def explain(net, x, method, target=1, **given):
    given = {
        **QUICK.get(method, {}),
        **({"baseline": "mean"} if method in ("integrated_gradients", "occlusion", "rise") else {}),
        **given,
    }
    if x.ndim != 4 or x.shape[1] != 3:
        given.pop("patch", None)
    return sw.explain(net, x, method, target, **given)


def peaked(size, place, channels=3):
    """score 0 = the pixel at `place`, of all channels."""
    net = linear(pixels=channels * int(np.prod(size)))
    net.fc.weight.data.zero_()
    net.fc.weight.data[0].view(channels, *size)[(slice(None), *place)] = 1
    return net


# row 38


@pytest.mark.parametrize(
    ("size", "place"), [((64, 96), (10, 80)), ((96, 64), (80, 10)), ((33, 70), (0, 69)), ((5, 90), (4, 0))]
)
@pytest.mark.parametrize("method", ["gradient", "gradient_x_input", "integrated_gradients"])
def test_a_peak_stays_at_its_row_and_column_also_on_the_disk_and_in_the_picture(size, place, method, tmp_path):
    e = sw.explain(sw.wrap(peaked(size, place)), images(1, size=size) * 0.9 + 0.05, method, 0)
    again = sw.read_explanation(e.save(tmp_path / "run"))
    for one in (e, again):
        assert one.raw.shape == one.maps.shape == (1, *size)
        assert divmod(int(one.maps[0].argmax()), size[1]) == place
        heat = np.asarray(one.heatmap()).astype(int)[: size[0], : size[1]]
        far = np.abs(heat - heat[(place[0] + 3) % size[0], (place[1] + 40) % size[1]]).sum(2)
        assert divmod(int(far.argmax()), size[1]) == place
    with Image.open(next((tmp_path / "run" / "pictures").iterdir())) as picture:
        assert picture.width >= size[1]


@pytest.mark.parametrize("size", [(64, 96), (96, 64), (40, 100)])
@pytest.mark.parametrize("method", LAYER)
def test_a_coarse_map_of_a_wide_or_tall_image_is_not_transposed(size, method):
    net, x = tiny_cnn(), torch.full((1, 3, *size), 0.5)
    place = (slice(0, size[0] // 4), slice(3 * size[1] // 4, size[1]))  # upper right
    x[0, :, place[0], place[1]] = torch.rand(3, size[0] // 4, size[1] - 3 * size[1] // 4)
    e = sw.explain(sw.wrap(net), x, method, 1)
    assert e.grid == (-(-size[0] // 4), -(-size[1] // 4))
    assert e.maps.shape == (1, *size)
    change = (e.maps[0] - e.maps[0, -1, 0]).abs()
    row, column = divmod(int(change.argmax()), size[1])
    assert row < size[0] / 2
    assert column > size[1] / 2


# row 41


@pytest.mark.parametrize("size", [(60, 1), (1, 60)])
@each_kind
def test_an_axis_of_one_pixel_is_kept(size, method):
    e = explain(tiny_cnn(), images(2, size=size), method)
    assert e.maps.shape == (2, *size)
    assert e.raw.shape == (2, *(size if method in INPUT else [-(-axis // 4) for axis in size]))
    assert torch.isfinite(e.raw).all()
    assert isinstance(e.overlay(), Image.Image)
    assert isinstance(e.heatmap(), Image.Image)


@pytest.mark.parametrize("size", [(1, 1), (2, 2)])
def test_an_image_that_one_cell_covers_is_refused_by_layer_methods_and_has_a_gradient(size):
    with pytest.raises(sw.RefusalError):
        sw.explain(tiny_cnn(), images(1, size=size), "grad_cam", 1)
    assert sw.explain(tiny_cnn(), images(1, size=size), "gradient", 1).raw.shape == (1, *size)


@pytest.mark.parametrize("length", [40, 7])
@each_kind
def test_a_signal_has_a_map_of_one_axis(method, length, tmp_path):
    e = explain(signal(), images(2, channels=2, size=(length,)), method)
    assert e.raw.shape == (2, length if method in INPUT else -(-length // 2))
    assert e.maps.shape == (2, length)
    for draw in (e.heatmap, e.overlay):
        with pytest.raises(sw.UsageError):
            draw()
    assert torch.equal(sw.read_explanation(e.save(tmp_path / "run")).raw, e.raw)


def test_the_peak_of_a_signal_stays_at_its_sample():
    e = sw.explain(peaked((50,), (37,), channels=2), images(1, channels=2, size=(50,)), "gradient", 0)
    assert int(e.maps[0].argmax()) == 37


# row 42


@each_method
def test_the_end_slices_of_the_map_of_a_volume_differ(method):
    e = explain(volume(), images(1, channels=1, size=(16, 32, 32)), method)
    if method not in ("occlusion", "lime"):  # of boxes, that neighboring slices share
        assert not torch.equal(e.maps[0, 0], e.maps[0, 1])
    if method != "lime":  # of four boxes here
        assert not torch.equal(e.maps[0, 0], e.maps[0, -1])


@pytest.mark.parametrize("hot", [0, 11, 15])
@pytest.mark.parametrize("method", ["gradient", "gradient_x_input", "integrated_gradients"])
def test_a_hot_slice_stays_the_hot_slice(hot, method):
    net = linear(pixels=16 * 8 * 8)
    net.fc.weight.data.zero_()
    net.fc.weight.data[0].view(16, 8, 8)[hot] = 1
    given = {"baseline": torch.zeros(1, 16, 8, 8)} if method != "gradient" else {}
    e = sw.explain(net, images(1, channels=1, size=(16, 8, 8)), method, 0, **given)
    assert int(e.maps[0].sum((1, 2)).argmax()) == hot


def test_a_hot_slice_of_a_layer_stays_where_it_is_after_resizing():
    net = nn.Sequential(nn.AvgPool3d(2), nn.Conv3d(1, 1, 1, bias=False), nn.Flatten(), nn.Linear(8 * 4 * 4, 2))
    net[1].weight.data.fill_(1)
    net[3].weight.data.fill_(1)
    x = torch.full((1, 1, 16, 8, 8), 0.1)
    x[0, 0, 10:12] = 1.0
    e = sw.explain(net, x, "grad_cam", 0, layer="1")
    assert e.grid == (8, 4, 4)
    assert int(e.maps[0].sum((1, 2)).argmax()) in (10, 11)


def video(temporal_stride):
    first = nn.Conv3d(3, 6, 3, (temporal_stride, 2, 2), 1)
    return nn.Sequential(first, nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(6, 5))


@pytest.mark.parametrize("temporal_stride", [1, 2])
@pytest.mark.parametrize("method", ["grad_cam", "score_cam"])
def test_a_video_has_a_map_for_every_frame(method, temporal_stride):
    e = sw.explain(seeded(video)(temporal_stride), images(2, size=(8, 20, 28)), method, 1)
    assert e.grid == (8 // temporal_stride, 10, 14)
    assert e.maps.shape == (2, 8, 20, 28)
    assert not torch.equal(e.maps[0, 0], e.maps[0, -1])


def test_a_video_has_a_gradient_for_every_frame():
    e = sw.explain(seeded(video)(1), images(2, size=(6, 20, 28)), "gradient", 1)
    assert e.maps.shape == (2, 6, 20, 28)
    assert all(frame.any() for frame in e.raw[0])


def test_a_reader_of_text_lines_that_halves_its_height_only_is_taken_at_its_last_layer():
    pools = [nn.MaxPool2d(2), nn.MaxPool2d((2, 1)), nn.MaxPool2d((2, 1))]
    blocks = [part for k, pool in enumerate(pools) for part in (nn.Conv2d(8 if k else 1, 8, 3, 1, 1), nn.ReLU(), pool)]
    net = seeded(lambda: nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)))()
    e = sw.explain(net, images(1, channels=1, size=(32, 128)), "grad_cam", 1)
    assert (e.layer, e.grid) == ("8", (4, 64))


# row 43


@pytest.mark.parametrize("channels", [1, 12])
@each_kind
def test_any_number_of_channels_has_maps_and_a_picture_of_its_first_bands(channels, method, tmp_path):
    x = images(2, channels=channels)
    e = explain(tiny_cnn(channels=channels), x, method)
    assert e.maps.shape == (2, 32, 32)
    assert torch.isfinite(e.raw).all()
    assert (e.overlay().mode, e.heatmap().mode) == ("RGB", "RGB")
    again = sw.read_explanation(e.save(tmp_path / "run"))
    assert torch.equal(again.raw, e.raw)
    assert torch.equal(again.images, e.images)
    e.overlay(0).load()
    assert torch.equal(e.raw, again.raw)  # a map does not depend on drawing


@pytest.mark.parametrize("channels", [3, 12])
def test_the_picture_has_red_where_the_first_band_is(channels):
    x = torch.zeros(1, channels, 32, 32)
    x[:, 0] = 1  # red, whoever counts from the other end sees blue
    e = sw.explain(
        sw.wrap(tiny_cnn(channels=channels), mean=(0.5,) * channels, std=(0.5,) * channels), x, "gradient", 1
    )
    shown = np.asarray(e.overlay(0, opacity=0.0))[:32, :32]
    assert shown[..., 0].min() > 200
    assert shown[..., 2].max() < 50


def test_a_gray_photo_is_shown_to_a_one_channel_and_to_a_three_channel_network():
    photo = Image.fromarray((images(1, size=(40, 40))[0, 0].numpy() * 255).astype(np.uint8))
    for channels in (1, 3):
        model = sw.wrap(tiny_cnn(channels=channels), mean=(0.5,) * channels, std=(0.5,) * channels, size=32)
        e = sw.explain(model, photo, "gradient", 1)
        assert e.images.shape == (1, channels, 32, 32)
        assert (e.images[0] == e.images[0, :1]).all()


def test_the_maps_of_a_gray_image_do_not_depend_on_how_many_times_its_band_is_repeated_for_the_eye():
    net, x = tiny_cnn(channels=1), images(1, channels=1)
    e = sw.explain(net, x, "gradient", 1)
    leaf = x.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(net(leaf)[0, 1], leaf)
    assert torch.allclose(e.raw, wanted[:, 0], atol=1e-7)


def test_an_image_of_another_number_of_channels_is_an_error_with_both_numbers():
    with pytest.raises(sw.UsageError, match=r"4 channels.*takes 3"):
        sw.explain(sw.wrap(tiny_cnn(), mean=(0.5,) * 3, std=(0.5,) * 3), images(1, channels=4), "gradient", 1)


@pytest.mark.parametrize("method", ["gradient", "grad_cam", "occlusion"])
@pytest.mark.parametrize(("channels", "size"), [(4, (32, 32)), (3, (16, 16))])
def test_images_that_the_network_itself_cannot_take_are_an_error_with_their_shape(method, channels, size):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 30 * 30, 5))
    with pytest.raises(sw.SeewhyError, match=rf"{channels}.*{size[0]}.*{size[1]}"):
        sw.explain(sw.wrap(net), images(1, channels=channels, size=size), method, 1)
