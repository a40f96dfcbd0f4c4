import pytest
import torch
from torch import nn
from twins_attention import generic_attention, le_grad, maps_and_gradients, rollout

import seewhy as sw
from attention_nets import explicit_vit, inline, multi_head, reading, tied, tuples, twin_of
from nets import images, tiny_vit
from seewhy import registry
from seewhy.registry import METHODS as METHODS_KNOWN

METHODS = ["attention_rollout", "transformer_attribution", "le_grad"]


def small(n=3, seed=0):
    return images(n, size=(16, 16), seed=seed)


def close(a, b, tolerance=1e-5):
    return float((a - b).abs().max()) <= tolerance * float(b.abs().max())


def row_of(net, matrix):
    """The row that the network reads: the class token's, or the mean of the pooled ones."""
    return matrix[0] if net.class_token else matrix[net.prefix :].mean(0)


KINDS = [{}, {"registers": 3}, {"class_token": False}, {"class_token": False, "registers": 2}]
each_kind = pytest.mark.parametrize("kind", KINDS, ids=["class token", "registers", "pooled", "pooled with registers"])


# -- the papers, slowly -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "heads"), [*((kind, "mean") for kind in KINDS), (KINDS[1], "max"), (KINDS[0], "min")])
def test_rollout_equals_its_slow_twin_in_any_batch(kind, heads):
    net, x = tiny_vit(grid=(4, 4), **kind), small(2)
    twin = twin_of(net, grid=(4, 4), **kind)
    wanted = []
    for image in x:
        maps, _ = maps_and_gradients(twin, image, 0)
        wanted.append(row_of(twin, rollout(maps, heads))[twin.prefix :].view(4, 4))
    for batch_size in (1, 8):
        e = sw.explain(sw.wrap(net, batch_size=batch_size), x, "attention_rollout", heads=heads)
        assert close(e.raw, torch.stack(wanted))


@each_kind
def test_transformer_attribution_equals_its_slow_twin_in_any_batch(kind):
    net, x = tiny_vit(grid=(4, 4), **kind), small(2)
    twin = twin_of(net, grid=(4, 4), **kind)
    wanted = []
    for image in x:
        relevance = generic_attention(*maps_and_gradients(twin, image, 2)) - torch.eye(16 + twin.prefix)
        wanted.append(row_of(twin, relevance)[twin.prefix :].view(4, 4))
    for batch_size in (1, 8):
        e = sw.explain(sw.wrap(net, batch_size=batch_size), x, "transformer_attribution", target=2)
        assert close(e.raw.double(), torch.stack(wanted))


@each_kind
@pytest.mark.parametrize("pooling", ["mean", "head"])
def test_le_grad_equals_its_slow_twin_in_any_batch(kind, pooling):
    net, x = tiny_vit(grid=(4, 4), **kind), small(2)
    twin = twin_of(net, grid=(4, 4), **kind)
    wanted = torch.stack([le_grad(twin, image, 2, pooling)[twin.prefix :].view(4, 4) for image in x])
    for batch_size in (1, 8):
        e = sw.explain(sw.wrap(net, batch_size=batch_size), x, "le_grad", target=2, pooling=pooling)
        assert close(e.raw, wanted)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "net", [tuples, tied, multi_head], ids=["tuples and keywords", "one block twice", "tokens first"]
)
def test_other_ways_to_write_the_same_network_give_the_same_map(method, net):
    given = {"batch_first": False, "norm_first": True} if net is multi_head else {}
    other, x = net(grid=(4, 4), **given), small()
    plain = tiny_vit(grid=(4, 4))
    if net is multi_head:
        plain = multi_head(grid=(4, 4))
    elif net is tied:
        plain.load_state_dict(other.state_dict())
        plain.blocks[1] = plain.blocks[0]
    else:
        plain.load_state_dict({name.replace(".block.", "."): t for name, t in other.state_dict().items()})
    target = None if method == "attention_rollout" else 3
    assert close(sw.explain(other, x, method, target).raw, sw.explain(plain, x, method, target).raw)


# -- closed forms -----------------------------------------------------------------------------------------------------


def with_attention(net, logits):
    """The network with attention of its own: `logits` (N, N) for every image and head."""
    for block in net.blocks:
        softmax = block.attn.softmax
        block.attn.softmax = lambda computed, softmax=softmax: softmax(logits.expand_as(computed) + 0 * computed)
    return net


def test_uniform_attention_gives_a_uniform_rollout():
    # (I + 1/17) / 2 twice: off the diagonal 1/2 1/2 1/17 + 1/2 1/17 = 3/4 of 1/17
    net = with_attention(explicit_vit(grid=(4, 4)), torch.zeros(17, 17))
    maps = registry.METHODS["attention_rollout"].function(sw.wrap(net), small(1), sw.target.PREDICTED)
    assert torch.allclose(maps.raw, torch.tensor(0.75 / 17), atol=1e-7)
    assert sw.explain(net, small(1), "attention_rollout").status == ["constant"]


def test_rollout_of_one_block_is_half_its_class_tokens_row():
    net, x = explicit_vit(grid=(4, 4), blocks=1), small()
    e = sw.explain(net, x, "attention_rollout")
    net(x)
    assert torch.allclose(e.raw.flatten(1), net.blocks[0].attn.kept.mean(1)[:, 0, 1:] / 2, atol=1e-7)


def test_attention_of_each_token_to_itself_leaves_everything_on_the_class_token():
    net = with_attention(explicit_vit(grid=(4, 4)), 1e4 * torch.eye(17))
    e = sw.explain(net, small(2), "attention_rollout")
    assert float(e.raw.abs().max()) == 0
    assert e.evidence["cells_share"].tolist() == [0, 0]
    assert e.status == [sw.Status.CONSTANT] * 2


@each_kind
def test_a_rollout_is_a_share_of_what_is_read(kind):
    net = tiny_vit(grid=(4, 4), **kind)
    e = sw.explain(net, small(), "attention_rollout")
    assert torch.allclose(e.raw.flatten(1).sum(1), e.evidence["cells_share"])
    assert (e.raw >= 0).all()
    assert (e.evidence["cells_share"] <= 1 + 1e-6).all()
    if not net.prefix:
        assert torch.allclose(e.evidence["cells_share"], torch.ones(3))


def test_transformer_attribution_of_one_block_is_the_positive_part_of_gradient_times_attention():
    net, x = explicit_vit(grid=(4, 4), blocks=1), small(1)
    (weights,), (slopes,) = maps_and_gradients(net, x[0], 3)
    wanted = (weights * slopes).clamp_min(0).mean(0)[0, 1:].view(4, 4)
    assert close(sw.explain(net, x, "transformer_attribution", target=3).raw[0], wanted)


def test_le_grad_of_one_block_and_its_own_head_is_the_positive_gradient():
    net, x = explicit_vit(grid=(4, 4), blocks=1), small(1)
    _, (slopes,) = maps_and_gradients(net, x[0], 3)
    wanted = slopes.clamp_min(0).mean((0, 1))[1:].view(4, 4)
    assert close(sw.explain(net, x, "le_grad", target=3, pooling="head").raw[0], wanted)


def test_a_small_score_of_pooled_tokens_keeps_its_map():
    # to first order in the score, R - I is the sum of the blocks' maps: nothing is lost beside the identity
    net, x = tiny_vit(grid=(4, 4), class_token=False), small(1)
    for parameter in net.head.parameters():
        parameter.data *= 2.0**-30
    tiny = sw.explain(net, x, "transformer_attribution", target=1)
    maps, slopes = maps_and_gradients(twin_of(net, grid=(4, 4), class_token=False), x[0], 1)
    wanted = sum((a * g).clamp_min(0).mean(0).mean(0) for a, g in zip(maps, slopes, strict=True)).view(4, 4)
    assert close(tiny.raw[0], wanted)


def test_transformer_attribution_is_not_proportional_to_the_score_and_le_grad_is():
    net, double, x = tiny_vit(grid=(4, 4)), tiny_vit(grid=(4, 4)), small(1)
    for parameter in double.head.parameters():
        parameter.data *= 64
    one, other = (sw.explain(n, x, "transformer_attribution", target=1).raw for n in (net, double))
    assert not close(other / 64, one, 1e-2)
    one, other = (sw.explain(n, x, "le_grad", target=1).raw for n in (net, double))
    assert torch.equal(other / 64, one)


def test_a_head_that_is_not_attended_counts_in_the_mean():
    # LeGrad and the generic rule divide by all heads and rows, also by those whose gradient is negative
    net, x = explicit_vit(grid=(4, 4)), small(1)
    for block in net.blocks:
        block.attn.proj.weight.data[:, 8:] = 0  # nobody reads the second head
    maps, slopes = maps_and_gradients(net, x[0], 1)
    assert float(slopes[1][1].abs().max()) == 0
    relevance = generic_attention(maps, slopes)
    assert close(sw.explain(net, x, "transformer_attribution", target=1).raw[0], relevance[0, 1:].view(4, 4))


# -- what else there is -----------------------------------------------------------------------------------------------


def torchvision_vit(layers=3):
    vision_transformer = pytest.importorskip("torchvision.models.vision_transformer")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = vision_transformer.VisionTransformer(
            image_size=32, patch_size=8, num_layers=layers, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=5
        )
        nn.init.normal_(net.heads.head.weight)  # torchvision starts with a head of zeros
        nn.init.normal_(net.class_token)
    return net.eval()


def test_le_grad_equals_torchcam_which_follows_the_authors_code():
    methods = pytest.importorskip("torchcam.methods")
    net, x = torchvision_vit(), images(2)
    with methods.LeGrad(net, list(net.encoder.layers)) as peer:
        wanted = sum(peer._get_weights(1, net(x))) / 3
    assert close(sw.explain(net, x, "le_grad", target=1).raw.flatten(1), wanted)
    assert not close(sw.explain(net, x, "le_grad", target=1, pooling="head").raw.flatten(1), wanted, 0.1)


@pytest.mark.parametrize("method", METHODS)
def test_torchvisions_vit_works_with_its_fast_path_and_says_what_it_said(method):
    net, x = torchvision_vit(2), images(2)
    e = sw.explain(net, x, method)
    assert e.raw.shape == (2, 4, 4)
    assert e.status == [sw.Status.OK] * 2
    with torch.no_grad():
        assert torch.allclose(e.scores, net(x).amax(1), atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "beit_base_patch16_224"])
def test_timms_networks_give_the_same_map_fused_and_not(method, name):
    timm = pytest.importorskip("timm")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = timm.create_model(
            name, img_size=32, patch_size=8, depth=2, embed_dim=32, num_heads=2, num_classes=5
        ).eval()
        nn.init.normal_(net.head.weight)
    x, target = images(2), None if method == "attention_rollout" else 3
    fused = sw.explain(net, x, method, target)
    for block in net.blocks:
        assert block.attn.fused_attn
        block.attn.fused_attn = False
    assert close(sw.explain(net, x, method, target).raw, fused.raw)
    if name.startswith("deit") and method != "le_grad":
        assert any("2 tokens before the grid" in note for note in fused.validity["approximations"])


@pytest.mark.parametrize("method", METHODS)
def test_a_grid_that_is_not_square_keeps_its_shape(method):
    e = sw.explain(tiny_vit(grid=(4, 12)), images(2, size=(16, 48)), method)
    assert e.raw.shape == (2, 4, 12)
    assert e.maps.shape == (2, 16, 48)


def test_columns_are_laid_out_row_by_row():
    # attention of the class token to the cell in row 1, column 2 of 4 x 12 alone
    logits = torch.zeros(49, 49)
    logits[0, 1 + 12 + 2] = 1e4
    net = with_attention(explicit_vit(grid=(4, 12)), logits)
    raw = sw.explain(net, images(1, size=(16, 48)), "attention_rollout").raw[0]
    assert (raw == raw.max()).nonzero().tolist() == [[1, 2]]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_network_in_another_float_type_gives_about_the_same_float32_map(method, dtype):
    net, x, target = tiny_vit(grid=(4, 4)), small(), None if method == "attention_rollout" else 2
    wanted = sw.explain(net, x, method, target).raw
    raw = sw.explain(net.to(dtype), x, method, target).raw
    assert raw.dtype == torch.float32
    assert close(raw, wanted, 0.05 if dtype == torch.bfloat16 else 1e-5)


@pytest.mark.parametrize(
    ("net", "note"),
    [
        (lambda: tiny_vit(grid=(4, 4)), None),
        (lambda: tiny_vit(grid=(4, 4), registers=2), None),
        (lambda: tiny_vit(grid=(4, 4), class_token=False), "from the grid, not from one class token"),
        (lambda: reading("two", grid=(4, 4), registers=1), "2 tokens before the grid"),
        (lambda: reading("all", grid=(4, 4)), "all kinds of tokens"),
    ],
    ids=["class token", "registers", "pooled", "distilled", "all"],
)
def test_what_stands_in_for_a_class_token_is_said(net, note):
    for method in ("attention_rollout", "transformer_attribution"):
        said = sw.explain(net(), small(1), method).validity["approximations"]
        assert (said == []) if note is None else (len(said) == 1 and note in said[0])


def test_le_grad_says_where_its_scores_are_not_the_networks_own():
    net, x = tiny_vit(grid=(4, 4)), small(1)
    assert "mean token" in sw.explain(net, x, "le_grad").validity["approximations"][0]
    assert sw.explain(net, x, "le_grad", pooling="head").validity["approximations"] == []
    assert sw.explain(reading("all", grid=(4, 4)), x, "le_grad").validity["approximations"] == []


@pytest.mark.parametrize(
    ("method", "forward", "gradient"),
    [("attention_rollout", 1, 0), ("transformer_attribution", 0, 1), ("le_grad", 1, 3)],
)
def test_rows_are_what_the_network_computes(method, forward, gradient):
    net, seen = explicit_vit(grid=(4, 4)), []
    net.blocks.append(explicit_vit(grid=(4, 4), seed=1).blocks[0])
    model, x = sw.wrap(net, batch_size=2), small(5)
    model.attention((3, 16, 16))
    net.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    e = sw.explain(model, x, method)
    assert (model.forward_rows, model.gradient_rows) == (5 * forward, 5 * gradient)
    assert sum(seen) == 5 * (forward + gradient)
    assert max(seen) == 2
    assert METHODS_KNOWN[method].rows({"blocks": 3}) == (forward, gradient)
    assert e.evidence["gradient_rows"].tolist() == [gradient] * 5


def test_le_grad_computes_each_block_twice_however_many_there_are():
    net, x, calls = explicit_vit(grid=(4, 4)), small(1), []
    model = sw.wrap(net)
    sw.explain(model, x, "le_grad", target=1)
    for k, block in enumerate(net.blocks):
        block.attn.register_forward_hook(lambda m, i, o, k=k: calls.append(k))
    sw.explain(model, x, "le_grad", target=1)
    assert calls == [0, 1, 0, 1]  # the clean run, then each block alone


def test_the_class_matters_except_to_rollout():
    net, x = tiny_vit(grid=(4, 4)), small()
    assert torch.equal(
        sw.explain(net, x, "attention_rollout", target=0, ignore_target=True).raw,
        sw.explain(net, x, "attention_rollout", target=4, ignore_target=True).raw,
    )
    with pytest.raises(sw.UsageError, match="same map for every class"):
        sw.explain(net, x, "attention_rollout", target=0)
    for method in ("transformer_attribution", "le_grad"):
        assert not close(*(sw.explain(net, x, method, target=k).raw for k in (0, 4)), 1e-2)


@pytest.mark.parametrize(
    ("method", "given", "says"),
    [
        ("attention_rollout", {"heads": "maximum"}, "unknown heads 'maximum'"),
        ("attention_rollout", {"heads": None}, "unknown heads"),
        ("le_grad", {"pooling": "means"}, "did you mean 'mean'"),
        ("transformer_attribution", {"layer": "blocks.0"}, "takes no layer"),
    ],
)
def test_wrong_parameters_are_refused_before_any_row(method, given, says):
    model = sw.wrap(tiny_vit(grid=(4, 4)))
    with pytest.raises(sw.UsageError, match=says):
        sw.explain(model, small(1), method, **given)
    assert (model.forward_rows, model.gradient_rows) == (0, 0)


def test_le_grad_refuses_a_network_without_blocks_and_names_what_works():
    net, x = inline(grid=(4, 4)), small(1)
    with pytest.raises(sw.RefusalError, match=r"blocks of Inline cannot be told apart.*transformer_attribution"):
        sw.explain(net, x, "le_grad")
    twin = twin_of(net, grid=(4, 4))
    for method in ("attention_rollout", "transformer_attribution"):
        assert close(sw.explain(net, x, method).raw, sw.explain(twin, x, method).raw)


def test_every_block_is_asked_for_the_class_that_the_whole_network_predicts():
    net, x = explicit_vit(grid=(4, 4)), small()
    early = net.head(net.norm(net.blocks[0](net.tokens(x)).mean(1))).argmax(1)
    assert early.tolist() == [2, 2, 2]
    e = sw.explain(net, x, "le_grad")
    assert [described["index"] for described in e.targets] == [4, 4, 4]
    assert torch.equal(e.raw, sw.explain(net, x, "le_grad", target=4).raw)
