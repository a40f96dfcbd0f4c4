import hashlib
import json

import numpy as np
import pytest
import torch
from PIL import Image

import seewhy as sw
from nets import MEAN, STD, images, tiny_cnn
from seewhy import runfolder
from seewhy.errors import UsageError
from seewhy.ledger import CONTENTS, explanation_key, explanation_record, open_ledger


def model(**more):
    return sw.wrap(tiny_cnn(), mean=MEAN, std=STD, **more)


def explained(method="grad_cam", given=None, **params):
    return sw.explain(model(), images(3) if given is None else given, method, **params)


def test_a_record_holds_what_the_schema_says_and_nothing_else():
    for method, params in (("grad_cam", {}), ("occlusion", {"patch": 16, "stride": 16}), ("random_map", {})):
        assert explanation_record(explained(method, **params)).keys() == CONTENTS["explanation"].keys()


def test_a_record_says_of_its_own_row_what_the_explanation_says():
    e = explained("integrated_gradients", rule="midpoint", steps=4, seed=7, target=[1, 2, 0])
    content = explanation_record(e, 1, model_version="v3", checks=["completeness-1"])
    raw, magnitude = e.raw[1].numpy(), np.sort(np.abs(e.raw[1].numpy()).ravel())[::-1]
    assert content["model_sha256"] == e.fingerprint() == model().fingerprint()
    assert (content["model"], content["model_version"], content["task"]) == ("Cnn", "v3", "multiclass")
    assert content["pixels_sha256"] == hashlib.sha256(e.images[1].numpy().tobytes()).hexdigest()
    assert (content["image"], content["image_sha256"], content["shape"]) == ("image 1", "", [3, 32, 32])
    assert (content["method"], content["parameters"]["steps"], content["seed"]) == ("integrated_gradients", 4, 7)
    assert (content["target"]["index"], content["score"]) == (2, float(e.scores[1]))
    assert content["predictions"] == e.predictions[1]
    assert (content["layer"], content["grid"], content["status"]) == (None, [32, 32], "ok")
    assert content["map"]["sha256"] == hashlib.sha256(runfolder.npy_bytes(raw)).hexdigest()
    assert content["map"]["mean"] == pytest.approx(float(raw.mean()))
    assert (content["map"]["max"], content["map"]["file"]) == (float(raw.max()), None)
    assert content["map"]["mass_in_top_5_percent"] == pytest.approx(magnitude[:51].sum() / magnitude.sum())
    assert content["evidence"]["completeness_gap"] == float(e.evidence["completeness_gap"][1])
    assert content["evidence"]["gradient_rows"] == 4
    assert (content["evidence"]["baseline"], content["evidence"]["rule"]) == ("black", "midpoint")
    assert content["evidence"]["baseline_reason"]
    assert content["validity"]["probability"] == e.validity["probability"][1]
    assert (content["precision"], content["checks"], content["seconds"]) == ("float32", ["completeness-1"], e.seconds)


def test_a_record_names_the_machine_and_the_versions():
    content = explanation_record(explained())
    found = content["machine"]
    assert (found["device"], found["threads"], found["accelerator"]) == ("cpu", torch.get_num_threads(), None)
    assert found["instruction_set"] == torch.backends.cpu.get_cpu_capability()
    assert found["cpu"]
    assert content["versions"]["torch"] == torch.__version__
    assert content["versions"]["numpy"] == np.__version__
    assert {"seewhy", "python", "scipy", "pillow"} < content["versions"].keys()


def test_a_record_goes_into_a_ledger_with_its_map_and_comes_out_the_same(tmp_path):
    e = explained()
    with open_ledger(tmp_path) as ledger:
        for i in range(3):
            content = explanation_record(e, i, map_file=ledger.keep(e.raw[i].numpy()))
            record = ledger.append("explanation", f"{i}", content)
            assert record.content == content
            assert record == ledger.find("explanation", f"{i}")
            assert np.array_equal(ledger.array(record.content["map"]["file"]), e.raw[i].numpy())
        assert len(ledger.read(method="grad_cam", model=e.fingerprint(), image="image 1")) == 1


def test_a_map_that_there_is_not_is_recorded_as_such(tmp_path):
    net = tiny_cnn()
    net.fc.weight.data.zero_()
    e = sw.explain(sw.wrap(net, mean=MEAN, std=STD), images(1), "gradient")
    content = explanation_record(e)
    assert content["status"] == "zero_gradient"
    assert content["map"]["mass_in_top_5_percent"] is None
    json.dumps(content, allow_nan=False)


def test_the_model_is_hashed_for_the_record_and_not_while_a_map_is_timed(monkeypatch):
    from seewhy import capture

    hashed, digest = [], capture.digest
    monkeypatch.setattr(capture, "digest", lambda module: hashed.append(1) or digest(module))
    e = explained()
    assert hashed == []
    for i in range(3):
        explanation_record(e, i)
    assert hashed == [1]


def test_a_record_that_would_name_no_model_is_refused():
    net = tiny_cnn()
    e = sw.explain(sw.wrap(net, mean=MEAN, std=STD), images(1))
    with torch.no_grad():
        net.fc.bias.add_(1)
    with pytest.raises(UsageError, match=r"would name no model \(unknown: the weights changed"):
        explanation_record(e)


def test_paths_are_relative_to_the_data_root(tmp_path):
    path = tmp_path / "data" / "cats" / "1.png"
    path.parent.mkdir(parents=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(path)
    e = sw.explain(model(size=32), path)
    content = explanation_record(e, root=tmp_path / "data" / "cats" / "..")
    assert content["image"] == "cats/1.png"
    assert content["image_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert content["geometry"] == e.sources[0].to_dict()["geometry"] is not None
    assert str(tmp_path) not in json.dumps(content)
    assert explanation_record(e)["image"] == str(path)
    assert explanation_record(explained(), root=tmp_path)["image"] == "image 0"
    with pytest.raises(UsageError, match="does not lie in the data root"):
        explanation_record(e, root=tmp_path / "other")


def test_an_explanation_that_was_saved_gives_the_same_record(tmp_path):
    e = explained()
    e.save(tmp_path / "run")
    again = sw.read_explanation(tmp_path / "run")
    assert [explanation_record(again, i) for i in range(3)] == [explanation_record(e, i) for i in range(3)]


@pytest.mark.parametrize("i", [-1, 3])
def test_a_row_that_there_is_not(i):
    with pytest.raises(UsageError, match=rf"row {i}: this explanation has 3 row\(s\)"):
        explanation_record(explained(), i)


def test_a_key_tells_explanations_apart_and_is_the_same_in_another_run():
    given = {"image": "i", "model": "m", "method": "occlusion", "parameters": {"fill": torch.zeros(3)}}
    others = [
        {"image": "j"},
        {"model": "n"},
        {"method": "grad_cam"},
        {"parameters": {"fill": torch.ones(3)}},
        {"parameters": {}},
        {"target": 3},
        {"seed": 1},
    ]
    keys = [explanation_key(**given), *(explanation_key(**{**given, **other}) for other in others)]
    assert len(set(keys)) == len(keys)
    assert explanation_key(**{**given, "parameters": {"fill": torch.zeros(3)}}) == keys[0]
