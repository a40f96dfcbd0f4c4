import torch

from nets import MEAN, STD, images
from seewhy.normalization import normalized, pixels


def test_the_way_there_is_the_networks_and_the_way_back_its_inverse():
    x = images(2)
    wanted = (x - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
    assert torch.allclose(normalized(x, MEAN, STD), wanted, atol=1e-6)
    assert torch.allclose(pixels(wanted, MEAN, STD), x, atol=1e-6)


def test_without_a_normalization_nothing_is_touched():
    x = images(1)
    assert normalized(x, None, None) is x
    assert pixels(x, None, None) is x


def test_what_is_kept_between_calls_is_an_ordinary_tensor_wherever_it_was_made():
    mean = (0.11, 0.22, 0.33)  # of this test alone
    with torch.inference_mode():
        normalized(images(1), mean, STD)
    leaf = images(1).requires_grad_()
    normalized(leaf, mean, STD).sum().backward()
    assert torch.allclose(leaf.grad[0, 0], torch.full((32, 32), 1 / STD[0]))
