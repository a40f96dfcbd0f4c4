"""Vision transformers: the grid, the tokens before it, and the last layer whose patches still count."""

import pytest
import torch
from torch import nn

import seewhy as sw
from cases.nets import QUICK
from nets import channels_last, images, seeded, tiny_vit

GRIDS = {  # grid, registers, class token -> input size
    "class token, 8 x 8": ((8, 8), 0, True),
    "class token, 4 x 12": ((4, 12), 0, True),
    "class token, 12 x 4": ((12, 4), 0, True),
    "4 registers, 8 x 8": ((8, 8), 4, True),
    "4 registers, 4 x 12": ((4, 12), 4, True),
    "mean pool, 8 x 8": ((8, 8), 0, False),
    "mean pool, 4 x 12": ((4, 12), 0, False),
    "mean pool, 4 registers": ((8, 8), 4, False),
    "9 registers, 2 x 6": ((2, 6), 8, True),
    "1 x 7": ((1, 7), 0, True),
    "4 registers, 5 x 7": ((5, 7), 4, True),
}


MISREAD = ("4 registers, 4 x 12", "9 registers, 2 x 6", "1 x 7", "4 registers, 5 x 7")


def kinds(names):
    return list(names)


def built(kind):
    grid, registers, class_token = GRIDS[kind]
    return tiny_vit(grid=grid, registers=registers, class_token=class_token), (4 * grid[0], 4 * grid[1])


# row 44


@pytest.mark.parametrize("kind", kinds(GRIDS))
@pytest.mark.parametrize("method", ["grad_cam", "attention_rollout"])
def test_the_grid_of_a_transformer_is_found_whatever_stands_before_it(kind, method):
    net, size = built(kind)
    grid = GRIDS[kind][0]
    e = sw.explain(
        sw.wrap(net), images(2, size=size), method, **({} if method == "attention_rollout" else {"target": 1})
    )
    assert e.grid == grid
    assert e.maps.shape == (2, *size)
    assert e.raw.any()


@pytest.mark.parametrize("kind", kinds(kind for kind in GRIDS if "1 x" not in kind))
def test_a_patch_that_alone_counts_lies_where_it_lies_in_the_image(kind):
    net, size = built(kind)
    grid, registers, class_token = GRIDS[kind]
    row, column = 1, grid[1] - 2
    patch = registers + class_token + row * grid[1] + column

    class OnePatch(nn.Module):
        def __init__(self):
            super().__init__()
            self.vit = net

        def forward(self, x):
            net, tokens = self.vit, self.vit.patch(x).flatten(2).transpose(1, 2)
            tokens = torch.cat([net.prefix_tokens.expand(len(x), -1, -1), tokens], 1) + net.positions
            return net.head(net.norm(tokens)[:, patch])

    e = sw.explain(sw.wrap(OnePatch()), images(1, size=size), "hires_cam", 1, layer="vit.norm")
    assert divmod(int(e.raw[0].abs().argmax()), grid[1]) == (row, column)
    assert int((e.raw[0] != 0).sum()) == 1


@pytest.mark.parametrize("size", [(32, 36), (28, 32), (48, 48)])
@pytest.mark.parametrize("method", ["grad_cam", "gradient"])
def test_an_image_of_another_size_than_the_positions_is_an_error_with_the_numbers(size, method):
    net, _ = built("class token, 8 x 8")
    with pytest.raises(sw.SeewhyError, match=rf"{size[0]}.*{size[1]}"):
        sw.explain(sw.wrap(net), images(1, size=size), method, 1)


@pytest.mark.parametrize("method", ["grad_cam", "score_cam", "eigen_cam"])
def test_tokens_that_are_channels_last_or_windowed_keep_their_grid(method):
    e = sw.explain(channels_last(), images(1), method)
    assert e.grid == (8, 8)
    assert e.raw.any()


class WithoutAGrid(nn.Module):
    """23 tokens of a square image: no grid, whatever is taken away."""

    def __init__(self):
        super().__init__()
        self.tokens, self.norm, self.head = nn.Linear(3 * 32 * 32, 23 * 4), nn.LayerNorm(4), nn.Linear(4, 5)

    def forward(self, x):
        return self.head(self.norm(self.tokens(x.flatten(1)).view(len(x), 23, 4)).mean(1))


def test_tokens_that_lie_on_no_grid_are_refused_with_their_number():
    net = seeded(WithoutAGrid)()
    with pytest.raises(sw.RefusalError, match="23 x 4"):
        sw.explain(sw.wrap(net), images(1), "grad_cam", 1, layer="norm")


# row 45


@pytest.mark.parametrize("registers", [0, 4])
@pytest.mark.parametrize("method", ["grad_cam", "layer_cam"])
def test_the_last_block_of_a_class_token_transformer_is_refused_with_a_better_one_and_never_blank(registers, method):
    net = tiny_vit(registers=registers)
    for layer in ("blocks.1", "norm", net.blocks[1], ["blocks.1"]):
        with pytest.raises(sw.RefusalError, match=r"prefix tokens.*exactly 0.*'blocks\.0"):
            sw.explain(sw.wrap(net), images(1), method, 1, layer=layer)
    e = sw.explain(sw.wrap(net), images(2), method, 1)
    assert e.layer.startswith("blocks.0")
    assert all(raw.any() for raw in e.raw)


@pytest.mark.parametrize("target", [None, 3, sw.target.margin(0, 2), lambda out: out[:, 1].exp()], ids=range(4))
def test_every_target_of_a_class_token_transformer_takes_a_layer_whose_patches_count(target):
    e = sw.explain(sw.wrap(tiny_vit()), images(2), "grad_cam", target)
    assert e.layer.startswith("blocks.0")
    assert all(norm > 0 for norm in e.validity["gradient_norm"])


@pytest.mark.parametrize("method", ["gradient", "integrated_gradients", "occlusion", "le_grad"])
def test_methods_on_the_input_do_not_mind_the_class_token(method):
    e = sw.explain(sw.wrap(tiny_vit()), images(1), method, 1, **QUICK.get(method, {}))
    assert e.raw.any()
    assert e.status[0] in (sw.Status.OK, sw.Status.ALL_NEGATIVE)
