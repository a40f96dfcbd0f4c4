"""Replay: what is bit-equal, what is within tolerance, what is different and why, and what cannot be replayed."""

import hashlib
import json
import shutil
import sqlite3

import numpy as np
import pytest
import torch
from PIL import Image

import seewhy as sw
from nets import MEAN, STD, images, seeded, tiny_cnn, tiny_vit
from seewhy.errors import RefusalError, UsageError
from seewhy.explanation import explain_rows
from seewhy.explanation.inputs import read_inputs
from seewhy.ledger import open_ledger, replay
from seewhy.registry import find_method
from seewhy.runfolder import npy_bytes
from small import SMALL
from task_nets import Segmenter, bright, detector


def wrapped(net=None, **more):
    return sw.wrap(net or tiny_cnn(), mean=MEAN, std=STD, size=32, **more)


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "data" / "cat.png"
    path.parent.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def run(tmp_path, photo):
    return sw.explain(wrapped(), photo).save(tmp_path / "run", root=photo.parent)


def again(run, photo, **given):
    return replay(run, 1, **{"model": tiny_cnn(), "root": photo.parent, **given})


def rewritten(run, change, raw=None):
    """The run's first record once more, with some of its content changed; the number of the new one."""
    with open_ledger(run) as ledger:
        content = ledger.read("explanation")[0].content
        change(content)
        if raw is not None:
            content["map"]["file"] = ledger.keep(raw)
            content["map"]["sha256"] = hashlib.sha256(npy_bytes(raw)).hexdigest()
        return ledger.append("explanation", f"another-{len(ledger.keys('explanation'))}", content).number


def map_of(run):
    with open_ledger(run, read_only=True) as ledger:
        return ledger.array(ledger.read("explanation")[0].content["map"]["file"])


# -- the same again ------------------------------------------------------------------------------------------------------

METHODS = ("grad_cam", "gradient", "smooth_grad", "integrated_gradients", "occlusion", "rise", "lime", "random_map")


@pytest.mark.parametrize("method", METHODS)
def test_every_row_of_a_call_is_bit_equal_also_without_those_beside_it(method, tmp_path):
    sw.explain(wrapped(), images(3), method, seed=4, **SMALL.get(method, {})).save(tmp_path)
    for number in (1, 2, 3):
        found = replay(tmp_path, number, model=tiny_cnn())
        assert (found.verdict, found.changed, found.difference["largest"]) == ("bit-equal", (), 0), str(found)
        assert found.score[0] == pytest.approx(found.score[1], rel=1e-5)


def test_a_transformer_and_an_adaptive_path_are_bit_equal(tmp_path):
    sw.explain(wrapped(tiny_vit()), images(2), "integrated_gradients").save(tmp_path)
    assert replay(tmp_path, 2, model=tiny_vit()).verdict == "bit-equal"


@pytest.mark.parametrize(
    "target", [3, "1 - 2", sw.target.probability(2), sw.target.margin(0, 4).on("log_probability")], ids=str
)
def test_every_question_about_classes_is_asked_again(target, tmp_path):
    e = sw.explain(wrapped(), images(1), target=target)
    e.save(tmp_path)
    found = replay(tmp_path, 1, model=tiny_cnn())
    assert (found.verdict, found.explanation.targets) == ("bit-equal", e.targets)


def test_regressions_regions_and_boxes_are_asked_again(tmp_path):
    segmenter = seeded(Segmenter)().eval()
    asked = (
        ("regression", "down", tiny_cnn(classes=1), images(1)),
        ("segmentation", "region 1", segmenter, images(1)),
        ("detection", "box 0", detector(), bright((1, 2, 0.9))[None]),
    )
    for task, target, net, x in asked:
        sw.explain(sw.wrap(net, mean=MEAN, std=STD, task=task), x, "gradient", target=target).save(tmp_path / task)
        found = replay(tmp_path / task, 1, model=sw.wrap(net, mean=MEAN, std=STD, task=task))
        assert (found.verdict, found.explanation.status[0]) == ("bit-equal", "ok"), task


def test_the_layout_of_a_tensor_in_memory_changes_nothing(tmp_path):
    x = images(1).to(memory_format=torch.channels_last)
    e = sw.explain(wrapped(), x)
    e.save(tmp_path)
    assert (x.is_contiguous(), e.images.is_contiguous()) == (False, True)
    assert replay(tmp_path, 1, model=tiny_cnn()).verdict == "bit-equal"


def test_threads_and_rows_in_a_forward_are_the_recorded_ones_and_go_back(run, photo):
    threads = torch.get_num_threads()
    number = rewritten(run, lambda content: content["machine"].update(threads=threads + 1, batch_size=3))
    model = wrapped(batch_size=2)
    found = replay(run, number, model=model, root=photo.parent)
    assert found.explanation.provenance["threads"] == threads + 1
    assert found.explanation.provenance["batch_size"] == 3
    assert (torch.get_num_threads(), model.batch_size, found.may_differ) == (threads, 2, ())


def test_the_pixels_of_an_audit_are_shown_as_it_shows_them_to_8_bits(tmp_path, photo):
    deep = np.random.default_rng(0).integers(0, 2**16, (40, 50), dtype=np.uint16)
    Image.fromarray(deep).save(photo)
    model = wrapped()
    x, shown = read_inputs(model, photo)
    rounded = (x * 255).round() / 255
    assert not torch.equal(x, rounded)
    explain_rows(model, rounded, shown, find_method("grad_cam"), None, None, 0, {})[0].save(tmp_path / "run")
    assert again(tmp_path / "run", photo).verdict == "bit-equal"


# -- what has changed ----------------------------------------------------------------------------------------------------


def test_another_weight_is_named_whatever_the_map(run, photo, tmp_path):
    net = tiny_cnn()
    with torch.no_grad():
        net.fc.bias[0] += 1
    found = again(run, photo, model=net)
    assert (found.verdict, [c.what for c in found.changed]) == ("different", ["model (architecture and every tensor)"])
    assert "something else was asked: model" in found.sentence
    sw.explain(wrapped(), photo, "edge_map").save(tmp_path / "control")  # which asks no network
    found = again(tmp_path / "control", photo, model=net)
    assert (found.verdict, found.difference["largest"]) == ("different", 0)
    assert "the map is bit-equal" in found.sentence


def test_another_image_is_named_and_so_is_the_same_one_in_another_file(run, photo):
    picture = Image.open(photo)
    picture.load()
    picture.save(photo, compress_level=1)
    found = again(run, photo)
    assert (found.verdict, [c.what for c in found.changed]) == ("bit-equal", ["image file"])
    picture.rotate(180).save(photo)
    found = again(run, photo)
    assert (found.verdict, [c.what for c in found.changed]) == (
        "different",
        ["image file", "pixels that the model is shown"],
    )
    assert "something else was asked: pixels" in found.sentence
    assert found.difference["n"] == map_of(run).size
    assert found.difference["relative"] > 1e-3


def test_another_normalization_and_other_parameters_are_other_questions(run, photo):
    found = again(run, photo, model=sw.wrap(tiny_cnn(), mean=MEAN, std=[0.5] * 3, size=32))
    assert [c.what for c in found.changed if c.decides] == ["std"]
    assert found.verdict == "different"
    found = again(run, photo, target=2)
    assert "target index" in [c.what for c in found.changed]
    found = again(run, photo, parameters={"layer": "conv1"})
    assert found.verdict == "different"


# -- other hardware ------------------------------------------------------------------------------------------------------


def nearly(raw, share):
    other = raw.copy()
    other.flat[0] += share * np.abs(raw).max()
    return other


def another_machine(content):
    content["machine"]["cpu"] = "Another CPU"


def test_on_another_machine_the_last_digits_may_differ_and_the_rest_may_not(run, photo):
    raw = map_of(run)
    close, far = (rewritten(run, another_machine, nearly(raw, share)) for share in (5e-6, 2e-5))
    found = replay(run, close, model=tiny_cnn(), root=photo.parent)
    assert (found.verdict, found.tolerance, found.ok) == ("within tolerance", 1e-5, True)
    assert found.may_differ == ("another cpu",)
    assert found.difference["relative"] == pytest.approx(5e-6, rel=0.05)
    assert found.difference["rank_correlation"] > 0.9
    found = replay(run, far, model=tiny_cnn(), root=photo.parent)
    assert (found.verdict, found.ok) == ("different", False)
    assert "more than 1.0e-05, as far as rounding alone moves it here (19 runs)" in found.sentence
    assert replay(run, far, model=tiny_cnn(), root=photo.parent, tolerance=1e-4).verdict == "within tolerance"


class Kinked(torch.nn.Module):
    """Its gradient jumps from 1 to 2 at a pixel where the second channel is exactly twice the first."""

    def forward(self, x):
        said = (torch.relu(2 * x[:, 0] - x[:, 1]) + x[:, 2]).flatten(1).sum(1)
        return torch.stack([said, 0 * said], 1)


def test_where_rounding_alone_moves_the_map_more_that_much_is_allowed_elsewhere(tmp_path):
    x = torch.full((1, 3, 8, 8), 0.25)
    x[:, 1, :, :6] = 0.5  # at the kink; the rest is far from it
    sw.explain(sw.wrap(Kinked()), x, "gradient", target=0).save(tmp_path)
    raw = map_of(tmp_path)
    assert set(np.unique(raw)) == {1, 2}
    flipped, wrong = raw.copy(), raw.copy()
    flipped[0, 0], wrong[0, 0] = 2, 4
    flipped, wrong, same = (rewritten(tmp_path, another_machine, other) for other in (flipped, wrong, raw))
    found = replay(tmp_path, flipped, model=sw.wrap(Kinked()))
    assert (found.verdict, found.tolerance, found.roundings) == ("within tolerance", 0.5, 1)
    assert "as far as rounding alone moves it" in found.sentence
    found = replay(tmp_path, wrong, model=sw.wrap(Kinked()))
    assert (found.verdict, found.tolerance, found.roundings) == ("different", 0.25, 19)  # of 4, its largest
    assert replay(tmp_path, same, model=sw.wrap(Kinked())).roundings == 0
    assert replay(tmp_path, flipped, model=sw.wrap(Kinked()), tolerance=1e-3).verdict == "different"


def test_on_the_same_machine_nothing_may_differ(run, photo):
    number = rewritten(run, lambda content: None, nearly(map_of(run), 5e-6))
    found = replay(run, number, model=tiny_cnn(), root=photo.parent)
    assert (found.verdict, found.may_differ) == ("different", ())
    assert "though it must be the same, bit by bit" in found.sentence


def test_beside_other_images_the_last_digits_may_differ(run, photo):
    number = rewritten(run, lambda content: content.update(rows=2), nearly(map_of(run), 5e-6))
    assert replay(run, number, model=tiny_cnn(), root=photo.parent).verdict == "within tolerance"


def test_in_few_digits_no_tolerance_is_known_so_none_is_given(run, photo, tmp_path):
    model = wrapped(precision="bfloat16")
    few = sw.explain(model, photo).save(tmp_path / "few")
    assert again(few, photo).verdict == "bit-equal"
    number = rewritten(few, another_machine, nearly(map_of(few), 5e-6))
    found = replay(few, number, model=tiny_cnn(), root=photo.parent)
    assert (found.verdict, found.tolerance) == ("different", 0)


# -- what is gone --------------------------------------------------------------------------------------------------------


def test_without_the_photo_the_run_folders_copy_is_shown_and_without_both_it_says_what_it_needs(run, photo):
    photo.unlink()
    found = again(run, photo)
    assert (found.verdict, "the copy that" in found.pixels) == ("bit-equal", True)
    shutil.rmtree(run / "images")
    with pytest.raises(sw.SeewhyError, match="missing or cannot be read"):
        again(run, photo)
    number = rewritten(run, lambda content: content.update(shown={"picture": None, "array": None}))
    with pytest.raises(RefusalError, match=r"without its image: .*cat.png is not there.*--root"):
        replay(run, number, model=tiny_cnn())


def test_of_an_erased_map_the_hash_is_left(run, photo):
    shutil.rmtree(run / "maps")
    found = again(run, photo)
    assert (found.verdict, found.difference) == ("bit-equal", None)
    assert "only its hash is left" in found.sentence
    with torch.no_grad():
        net = tiny_cnn()
        net.fc.weight.mul_(1.5)
    assert again(run, photo, model=net).verdict == "different"
    other = nearly(np.zeros((8, 8), np.float32) + 1, 0.1)
    number = rewritten(run, another_machine, other)
    shutil.rmtree(run / "maps")
    with pytest.raises(RefusalError, match=r"that says nothing here.*another cpu"):
        replay(run, number, model=tiny_cnn(), root=photo.parent)


def test_what_a_record_holds_only_the_hash_of_is_given_again(tmp_path):
    references = SMALL["expected_gradients"]["references"]
    sw.explain(wrapped(), images(1), "expected_gradients", references=references, samples=2).save(tmp_path)
    with pytest.raises(RefusalError, match=r"only the hash of the parameter references \(tensor \(2, 3, 32, 32\)"):
        replay(tmp_path, 1, model=tiny_cnn())
    assert replay(tmp_path, 1, model=tiny_cnn(), parameters={"references": references}).verdict == "bit-equal"
    found = replay(tmp_path, 1, model=tiny_cnn(), parameters={"references": references.flip(-1)})
    assert [change.what for change in found.changed] == ["parameter references"]

    def brightest(outputs):
        return outputs.amax(1)

    sw.explain(wrapped(), images(1), "gradient", target=brightest).save(tmp_path)
    with pytest.raises(RefusalError, match="only the hash of its target"):
        replay(tmp_path, 2, model=tiny_cnn())
    assert replay(tmp_path, 2, model=tiny_cnn(), target=brightest).verdict == "bit-equal"


def test_a_model_that_was_given_as_an_object_is_asked_for(run, photo):
    with pytest.raises(RefusalError, match=r"does not say how its model was loaded \(Cnn, given as an object\)"):
        again(run, photo, model=None)


def test_a_method_from_outside_is_asked_for(tmp_path):
    captum = pytest.importorskip("captum.attr")
    method = sw.from_captum(captum.Saliency)
    sw.explain(wrapped(), images(1), method).save(tmp_path)
    with pytest.raises(RefusalError, match="a method from outside seewhy"):
        replay(tmp_path, 1, model=tiny_cnn())
    assert replay(tmp_path, 1, model=tiny_cnn(), method=method).verdict == "bit-equal"


# -- which record --------------------------------------------------------------------------------------------------------


def test_a_record_is_named_by_its_number_or_the_start_of_its_key(tmp_path):
    sw.explain(wrapped(), images(2)).save(tmp_path)
    with open_ledger(tmp_path, read_only=True) as ledger:
        first, second = ledger.read("explanation")
    assert replay(tmp_path, second.key[:8], model=tiny_cnn()).number == 2
    assert replay(tmp_path, "1", model=tiny_cnn()).key == first.key
    for wrong in (3, "no-such-key", ""):
        with pytest.raises(UsageError, match=r"holds 2 \(numbers 1, 2\)"):
            replay(tmp_path, wrong, model=tiny_cnn())
    with pytest.raises(UsageError, match="there is no ledger"):
        replay(tmp_path / "nowhere", 1)


def test_several_keys_with_that_start_are_an_error_with_their_numbers(run):
    for _ in range(2):
        rewritten(run, lambda content: None)
    with pytest.raises(UsageError, match=r"2 explanations have a key that starts with 'another' \(numbers 2, 3\)"):
        replay(run, "another")


def test_a_record_that_was_changed_is_not_replayed(run, photo):
    database = sqlite3.connect(run / "ledger.sqlite")
    database.execute("DROP TRIGGER record_is_never_changed")
    database.execute("UPDATE record SET content = replace(content, '\"seed\":0', '\"seed\":1')")
    database.commit()
    database.close()
    with pytest.raises(RefusalError, match="record 1 was changed after it was written"):
        again(run, photo)


def test_what_came_of_it_is_plain_json(run, photo):
    found = again(run, photo)
    told = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert (told["verdict"], told["number"], told["changed"]) == ("bit-equal", 1, [])
    assert str(found).startswith("record 1, grad_cam of cat.png (")
