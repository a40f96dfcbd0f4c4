"""Attention is seen as it is computed, changes nothing, and is refused where it is not over all tokens."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import seewhy as sw
from attention_nets import (
    SPELLINGS,
    checkpointed_vit,
    cut_vit,
    explicit_vit,
    failing_vit,
    inline,
    multi_head,
    odd,
    parallel,
    reading,
    tied,
    tuples,
    twin_of,
)
from nets import dropout_always, images, tiny_cnn, tiny_vit
from seewhy import capture
from seewhy.target import PREDICTED


def small(n=3, seed=0):
    return images(n, size=(16, 16), seed=seed)


def attention_of(net, shape=(3, 16, 16), target=PREDICTED):
    return sw.wrap(net).attention(shape, target)


def seen(call, rows, tokens):
    kept = []

    def see(_, weights):
        kept.append(weights)
        return weights

    return capture.attend(call, rows, tokens, see), kept


def total(outputs):
    return outputs[:, 1]


# -- scaled_dot_product_attention and softmax, as they are written ----------------------------------------------------


def qkv(heads=2, shape=(3, 2, 5, 4)):
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(shape, generator=generator)
    k, v = (torch.randn(shape[0], heads, *shape[2:], generator=generator) for _ in range(2))
    return q, k, v


MASK = torch.tensor([[True, False, True, True, False]] * 4 + [[False] * 5])


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"scale": 0.3},
        {"is_causal": True},
        {"attn_mask": MASK[:4].repeat(2, 1)[:5]},
        {"attn_mask": MASK},
        {"attn_mask": torch.linspace(-2, 2, 25).view(5, 5)},
        {"attn_mask": torch.linspace(-2, 2, 25).view(1, 1, 5, 5), "dropout_p": 0.0},
    ],
    ids=["plain", "scale", "causal", "boolean mask", "a query that sees nothing", "added mask", "dropout 0"],
)
def test_fused_attention_is_computed_step_by_step_and_stays_the_same(given):
    q, k, v = qkv()
    wanted = functional.scaled_dot_product_attention(q, k, v, **given)
    output, (weights,) = seen(lambda: functional.scaled_dot_product_attention(q, k, v, **given), 3, 5)
    assert torch.allclose(output, wanted, atol=1e-6)
    assert torch.allclose(weights @ v, wanted, atol=1e-6)
    assert ((weights.sum(-1) - 1).abs() < 1e-6).logical_or(weights.sum(-1) == 0).all()


def test_grouped_queries_share_their_keys():
    q, k, v = qkv(heads=2, shape=(3, 4, 5, 4))
    wanted = functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)
    output, (weights,) = seen(lambda: functional.scaled_dot_product_attention(q, k, v, enable_gqa=True), 3, 5)
    assert weights.shape == (3, 4, 5, 5)
    assert torch.allclose(output, wanted, atol=1e-6)


def test_a_dropout_that_is_on_in_evaluation_stays_on():
    q, k, v = (torch.ones(3, 2, 5, 4),) * 3
    output, (weights,) = seen(lambda: functional.scaled_dot_product_attention(q, k, v, dropout_p=0.5), 3, 5)
    assert torch.allclose(weights, torch.tensor(0.2))
    assert float(output.std()) > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_weights_of_a_half_precision_network_are_float32(dtype):
    q, k, v = (t.to(dtype) for t in qkv())
    wanted = functional.scaled_dot_product_attention(q, k, v)
    output, (weights,) = seen(lambda: functional.scaled_dot_product_attention(q, k, v), 3, 5)
    assert output.dtype == dtype
    assert weights.dtype == torch.promote_types(dtype, torch.float32)
    assert torch.allclose(output, wanted, atol=3e-2 if dtype == torch.bfloat16 else 3e-3)


def test_under_autocast_the_output_has_the_type_that_torch_gives_it():
    q, k, v = qkv()
    with torch.autocast("cpu", torch.bfloat16):
        wanted = functional.scaled_dot_product_attention(q, k, v)
        output, (weights,) = seen(lambda: functional.scaled_dot_product_attention(q, k, v), 3, 5)
    assert (output.dtype, weights.dtype) == (wanted.dtype, torch.float32)
    assert torch.allclose(output, wanted, atol=3e-2)


def test_attention_over_other_tokens_is_left_to_torch():
    q, k, v = qkv()
    output, kept = seen(lambda: functional.scaled_dot_product_attention(q[:, :, :2], k, v), 3, 5)
    assert not kept
    assert torch.equal(output, functional.scaled_dot_product_attention(q[:, :, :2], k, v))


@pytest.mark.parametrize("softmax", SPELLINGS)
def test_every_spelling_of_softmax_is_seen(softmax):
    logits = qkv()[0] @ qkv()[1].transpose(-2, -1)
    output, (weights,) = seen(lambda: SPELLINGS[softmax](logits), 3, 5)
    assert torch.equal(output, logits.softmax(-1))
    assert torch.equal(weights, output)


def test_a_softmax_along_another_axis_or_of_a_table_is_no_attention():
    logits = torch.randn(3, 2, 5, 5)
    _, kept = seen(lambda: (logits.softmax(1), logits.softmax(2), logits[:, 0, 0].softmax(-1)), 3, 5)
    assert not kept


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("masked", [False, True])
def test_multi_head_attention_is_looked_into_whatever_it_is_asked(need_weights, batch_first, masked):
    torch.manual_seed(0)
    module = nn.MultiheadAttention(8, 2, batch_first=batch_first).eval()
    x = torch.randn(3, 5, 8) if batch_first else torch.randn(5, 3, 8)
    mask = torch.ones(5, 5, dtype=torch.bool).triu(1) if masked else None

    def call(average=True, need_weights=need_weights):
        return module(x, x, x, attn_mask=mask, need_weights=need_weights, average_attn_weights=average)

    with torch.no_grad():
        wanted, own = call()
        _, per_head = call(average=False, need_weights=True)
    (output, own_again), (weights,) = seen(call, 3, 5)
    assert torch.allclose(output, wanted, atol=1e-6)
    assert torch.allclose(weights, per_head, atol=1e-6)
    assert own is own_again is None or torch.allclose(own, own_again, atol=1e-6)


@pytest.mark.parametrize("net", [multi_head(), multi_head(batch_first=False), multi_head(norm_first=False)])
def test_the_fast_path_of_torchs_own_encoder_is_left(net):
    x = small()
    net = multi_head(grid=(4, 4), batch_first=net.batch_first)
    with torch.no_grad():
        wanted = net(x)
    output, weights = seen(lambda: net(x), 3, 17)
    assert [tuple(w.shape) for w in weights] == [(3, 2, 17, 17)] * 2
    assert torch.allclose(output, wanted, atol=1e-5)


@pytest.mark.parametrize("flat", [False, True], ids=["by heads", "heads in the batch"])
def test_fused_and_written_out_attention_give_the_same_maps(flat):
    net, x = tiny_vit(grid=(4, 4)), small()
    twin = twin_of(net, grid=(4, 4), flat=flat)
    output, weights = seen(lambda: net(x), 3, 17)
    twin_output, twin_weights = seen(lambda: twin(x), 3, 17)
    assert torch.allclose(output, net(x), atol=1e-6)
    assert torch.allclose(output, twin_output, atol=1e-5)
    for a, b in zip(weights, twin_weights, strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_what_see_gives_back_is_what_the_network_goes_on_with():
    net, x = tiny_vit(grid=(4, 4)), small()
    uniform = capture.attend(lambda: net(x), 3, 17, lambda _, weights: torch.full_like(weights, 1 / 17))
    twin = twin_of(net, grid=(4, 4))
    for block in twin.blocks:
        block.attn.softmax = lambda logits: torch.full_like(logits, 1 / 17)
    assert not torch.allclose(uniform, net(x), atol=1e-3)
    assert torch.allclose(uniform, twin(x), atol=1e-5)


# -- gradients --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "net", [tiny_vit, explicit_vit, checkpointed_vit], ids=["fused", "written out", "checkpointed"]
)
def test_the_gradient_of_a_map_is_autograds_own(net):
    net, x = net(grid=(4, 4)), small()
    twin = twin_of(net, grid=(4, 4))
    score = twin(x)[:, 1].sum()
    kept = [block.attn.kept for block in twin.blocks]
    wanted = torch.autograd.grad(score, kept)
    weights, gradients = capture.attention_gradients(net, lambda: net(x), total, 3, 17)
    for a, g, kept_weights, slope in zip(weights, gradients, kept, wanted, strict=True):
        assert torch.allclose(a, kept_weights, atol=1e-6)
        assert (g - slope).abs().max() <= 1e-5 * slope.abs().max()
        assert not a.requires_grad


def test_a_network_that_changes_its_weights_in_place_gets_a_copy():
    net, x = explicit_vit(grid=(4, 4), in_place=True), small()
    plain = explicit_vit(grid=(4, 4))
    (_, gradients), (_, wanted) = (capture.attention_gradients(n, lambda n=n: n(x), total, 3, 17) for n in (net, plain))
    for a, b in zip(gradients, wanted, strict=True):
        assert torch.allclose(a, b, atol=1e-7)


def test_the_graph_begins_at_the_first_map():
    net, x = tiny_vit(grid=(4, 4)), small()
    graphs = []
    handle = net.blocks[0].norm1.register_forward_hook(lambda m, i, o: graphs.append(o.requires_grad))
    second = net.blocks[1].norm1.register_forward_hook(lambda m, i, o: graphs.append(o.requires_grad))
    capture.attention_gradients(net, lambda: net(x), total, 3, 17)
    handle.remove(), second.remove()
    assert graphs == [False, True]
    assert all(p.requires_grad and p.grad is None for p in net.parameters())


@pytest.mark.parametrize("how", ["no_grad", "inference_mode"])
def test_a_cut_graph_is_refused_but_rollout_needs_none(how):
    net, x = cut_vit(how, grid=(4, 4)), small()
    for method in ("transformer_attribution", "le_grad"):
        with pytest.raises(sw.RefusalError, match="graph is cut between it and the score"):
            sw.explain(net, x, method)
    assert torch.equal(
        sw.explain(net, x, "attention_rollout").raw, sw.explain(tiny_vit(grid=(4, 4)), x, "attention_rollout").raw
    )


# -- nothing is left behind -------------------------------------------------------------------------------------------


def clean(net):
    own = [name for name, module in net.named_modules() if "forward" in module.__dict__]
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules())
    return own, hooks, len(torch.overrides._get_current_function_mode_stack()), torch.is_grad_enabled()


def repeatedly(call):
    for _ in range(12):
        call()


@pytest.mark.parametrize("method", ["attention_rollout", "transformer_attribution", "le_grad"])
def test_nothing_is_left_behind_wherever_the_forward_fails(method):
    net, x = failing_vit(grid=(4, 4)), small()
    torch_own = functional.scaled_dot_product_attention, functional.multi_head_attention_forward
    model = sw.wrap(net, batch_size=1)
    before = clean(net)
    for after in range(12):  # in the search, the clean run and every block's
        net.after = net.seen + after
        with pytest.raises(ZeroDivisionError):
            repeatedly(lambda: sw.explain(model, x, method))
        assert clean(net) == before
    assert (functional.scaled_dot_product_attention, functional.multi_head_attention_forward) == torch_own


def test_a_forward_that_another_library_has_set_is_put_back():
    net, x = tiny_vit(grid=(4, 4)), small()
    wanted = sw.explain(net, x, "le_grad").raw
    block, calls = net.blocks[0], []
    own = block.forward
    block.forward = replaced = lambda tokens: calls.append(1) or own(tokens)
    assert torch.equal(sw.explain(net, x, "le_grad").raw, wanted)
    assert block.__dict__["forward"] is replaced
    assert calls


# -- which attention, and what is read of it --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("net", "prefix", "read"),
    [
        (lambda: tiny_vit(grid=(4, 4)), 1, [0]),
        (lambda: tiny_vit(grid=(4, 4), registers=3), 4, [0]),
        (lambda: tiny_vit(grid=(4, 4), class_token=False), 0, range(16)),
        (lambda: tiny_vit(grid=(4, 4), registers=2, class_token=False), 2, range(2, 18)),
        (lambda: reading("two", grid=(4, 4), registers=1), 2, [0, 1]),
        (lambda: reading("all", grid=(4, 4)), 1, range(17)),
        (lambda: reading("cells", grid=(4, 4)), 1, range(1, 17)),
    ],
    ids=[
        "class token",
        "registers",
        "pooled",
        "pooled with registers",
        "distilled",
        "all pooled",
        "class token unread",
    ],
)
def test_the_tokens_that_the_score_is_read_from_are_found_by_experiment(net, prefix, read):
    found = attention_of(net())
    assert (found.form.grid, found.form.prefix, found.calls) == ((4, 4), prefix, 2)
    assert found.read.nonzero().flatten().tolist() == list(read)
    assert [site.name for site in found.blocks.sites] == ["blocks.0", "blocks.1"]


def test_a_tiny_layer_scale_does_not_hide_who_reads_what_in_rounding():
    net, without_modules = reading("cells", grid=(4, 4)), inline(grid=(4, 4))
    for block in (*net.blocks, *without_modules.blocks):
        block.attn.proj.weight.data *= 1e-8
        block.attn.proj.bias.data.zero_()
    assert attention_of(net).read.tolist() == [False] + [True] * 16
    assert attention_of(without_modules).read.tolist() == [True] + [False] * 16


@pytest.mark.parametrize(
    ("net", "sites", "axis"),
    [
        (lambda: tuples(grid=(4, 4)), ["blocks.0", "blocks.1"], 1),
        (lambda: tied(grid=(4, 4)), ["blocks.0", "blocks.0"], 1),
        (lambda: multi_head(grid=(4, 4)), ["blocks.layers.0", "blocks.layers.1"], 1),
        (lambda: multi_head(grid=(4, 4), batch_first=False), ["blocks.layers.0", "blocks.layers.1"], 0),
        (lambda: inline(grid=(4, 4)), None, None),
    ],
    ids=["tuples and keywords", "one block twice", "torch's encoder", "tokens first", "no modules"],
)
def test_blocks_are_the_outermost_modules_that_hold_one_attention_each(net, sites, axis):
    blocks = attention_of(net()).blocks
    assert (blocks is None) == (sites is None)
    if blocks is not None:
        assert [site.name for site in blocks.sites] == sites
        assert [site.which for site in blocks.sites] == ([0, 1] if len(set(sites)) == 1 else [0, 0])
        assert blocks.axis == axis


def test_attention_is_found_once_per_shape_and_not_counted():
    model, runs = sw.wrap(tiny_vit(grid=(4, 4))), []
    model.module.register_forward_hook(lambda m, i, o: runs.append(1))
    found = model.attention((3, 16, 16))
    made = len(runs)
    assert model.attention((3, 16, 16)) is found
    assert len(runs) == made
    assert (model.forward_rows, model.gradient_rows) == (0, 0)


def test_a_function_of_the_output_has_tokens_of_its_own():
    net, kept = reading("all", grid=(4, 4)), []
    net.norm.register_forward_hook(lambda m, i, o: kept.append(o))
    model, first = sw.wrap(net), sw.target.of(lambda output: kept[-1][:, 0].sum(1) * kept[-1][:, 0, 0])
    assert model.attention((3, 16, 16)).read.all()
    assert model.attention((3, 16, 16), first).read.tolist() == [True] + [False] * 16


def test_where_the_score_changes_with_nothing_the_whole_output_says_what_is_read():
    net, dead = reading("cells", grid=(4, 4)), sw.target.of(lambda output: output[:, 0].clamp_max(-1e6))
    assert attention_of(net, target=dead).read.tolist() == [False] + [True] * 16
    assert sw.explain(net, small(1), "transformer_attribution", target=dead).status == [sw.Status.ZERO_GRADIENT]


@pytest.mark.parametrize(
    ("net", "says"),
    [
        (tiny_cnn, "Cnn computes no attention that can be seen"),
        (lambda: odd("windows", grid=(4, 4)), "Odd computes attention, but not over all tokens"),
        (lambda: odd("pooled", grid=(4, 4)), "2 x 1 x 17 x 9"),
        (lambda: odd("pooled, written out", grid=(4, 4)), "2 x 1 x 17 x 9"),
        (lambda: odd("two sizes", grid=(4, 4)), "2 x 2 x 17 x 17, 2 x 2 x 10 x 10"),
        (lambda: odd("class token", grid=(4, 4)), "2 x 1 x 1 x 17"),
        (lambda: odd("channels", grid=(4, 4)), "not over all tokens"),
        (lambda: parallel(grid=(4, 4)), "side by side \\(number 2 does not depend on number 1\\)"),
        (lambda: reading("class token last", grid=(4, 4)), "class token comes after the grid"),
        (lambda: reading("nothing", grid=(4, 4)), "changes nothing in its output"),
    ],
    ids=[
        "no attention",
        "windows",
        "pooled",
        "written out",
        "two sizes",
        "class attention",
        "channels",
        "side by side",
        "last",
        "unread",
    ],
)
@pytest.mark.parametrize("method", ["attention_rollout", "transformer_attribution", "le_grad"])
def test_other_networks_are_refused_by_name_and_told_what_to_use(method, net, says):
    with pytest.raises(sw.RefusalError, match=says) as refused:
        sw.explain(net(), small(), method)
    assert "grad_cam" in str(refused.value)


def test_a_swin_transformer_is_refused_with_its_windows():
    timm = pytest.importorskip("timm")
    net = timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=32, window_size=4, depths=(1, 1), embed_dim=16, num_heads=(2, 2)
    ).eval()
    with pytest.raises(sw.RefusalError, match=r"SwinTransformer computes attention, but not .* 8 x 2 x 16 x 16"):
        sw.explain(net, images(1), "attention_rollout")


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_a_traced_network_is_refused():
    net = torch.jit.trace(tiny_vit(grid=(4, 4)), small(2))
    with pytest.raises(sw.RefusalError, match="no attention"):
        sw.explain(net, small(), "attention_rollout")


def test_an_image_of_one_or_three_axes_is_refused():
    class Signal(nn.Module):
        def __init__(self):
            super().__init__()
            self.proj = nn.Linear(2, 2)

        def forward(self, x):
            tokens = self.proj(x.transpose(1, 2))
            return functional.scaled_dot_product_attention(tokens, tokens, tokens).mean(1)

    with pytest.raises(sw.RefusalError, match="not over all tokens of a grid"):
        sw.explain(Signal(), torch.rand(2, 2, 16), "attention_rollout")


def test_a_network_without_attention_that_draws_random_numbers_is_refused_like_any_other():
    with pytest.raises(sw.RefusalError, match="no attention"):
        sw.explain(dropout_always(), images(1), "attention_rollout")
