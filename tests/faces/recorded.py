"""Run folders whose ledger holds real explanations and checks of a tiny network, as the commands write them."""

from pathlib import Path

from audited import findings
from PIL import Image

import seewhy as sw
from nets import MEAN, STD, images, tiny_cnn
from seewhy import runfolder
from seewhy.ledger import explanation_key, explanation_record, open_ledger

NAMES = ("a.png", "b.png", "c.png")


def network(seed=0):
    return sw.wrap(
        tiny_cnn(seed=seed), mean=MEAN, std=STD, size=32, crop=1.0, labels=["cat", "dog", "owl", "cup", "key"]
    )


def photos(folder, names=NAMES):
    """The same pictures as files."""
    paths = []
    for x, name in zip(images(len(names)), names, strict=True):
        paths.append(Path(folder) / name)
        Image.fromarray((x.permute(1, 2, 0).numpy() * 255).astype("uint8")).save(paths[-1])
    return paths


def explained(folder, *methods, names=NAMES, model=None, change=None, **more):
    """Append an explanation of every image by each method; methods: a name, or (name, parameters)."""
    model, paths = model or network(), photos(folder, names)
    with open_ledger(folder) as ledger:
        for one in methods:
            method, params = (one, {}) if isinstance(one, str) else one
            e = sw.explain(model, paths, method, **params)
            for i in range(len(e)):
                content = explanation_record(e, i, map_file=ledger.keep(e.raw[i].numpy()), root=folder, **more)
                if change:
                    change(content)
                key = explanation_key(content["pixels_sha256"], content["model_sha256"], method, params)
                ledger.append("explanation", key, content)
    return Path(folder)


def checked(folder, method, *checks, model=None, names=NAMES, **params):
    """Append the rows of a trust card."""
    card = sw.check(model or network(), photos(folder, names), method, only=list(checks), **params)
    with open_ledger(folder) as ledger:
        for key, row in zip(card.rows, card.to_dict()["checks"], strict=True):
            ledger.append("check", key, runfolder.plain({"id": key, "card": card.about, **row}))
    return Path(folder)


def audited(folder, *methods, finished=True, finds=None, **verdict):
    """The ledger of an audit: predictions, real explanations, what was found, and the verdict."""
    found, model = findings() if finds is None else finds, network()
    explained(folder, *(methods or ("grad_cam", ("occlusion", {"patch": 8}))), model=model)
    with open_ledger(folder) as ledger:
        about = {"model": "module:parcels.net", "model_sha256": model.fingerprint(), "data": "d4" * 32}
        settings = {"methods": ["grad_cam", "occlusion"], "per_class": 40, "explained": 1000, "seed": 0}
        ledger.append("run", "run", {**about, "settings": settings, "versions": {"torch": "2.8.0"}, "machine": {}})
        said = {"predicted": "cat", "score": 2.0, "probability": 0.9, "outputs": None, "metadata": {}, "label": "cat"}
        own = [{"path": f"cat/{i:02}.png", "group": f"depot {i % 4}", "right": i % 10 != 0} for i in range(40)]
        ledger.append_all("prediction", [(one["path"], {**one, **said}) for one in own])
        ledger.append("skip", "torn", {"path": "cat/torn.png", "reason": "cat/torn.png: the file ends too early."})
        ledger.append("setup", "setup", {"sentence": "accuracy 0.9 [0.77, 0.96] (n = 40), chance 0.2.", "warning": ""})
        keys = [one.key for one in ledger.append_all("finding", [(f"finding {one['id']}", one) for one in found])]
        if finished:
            ledger.append("verdict", "verdict", {**VERDICT, "findings": keys, **verdict})
    return Path(folder)


VERDICT = {
    "verdict": "blocked",
    "reasons": ["Blocked by 3 findings of 5 candidates.", "Look at findings/a11ce0000001 first."],
    "policy": {"path": "seewhy.toml", "sha256": "ab" * 32},
    "detectable_effect": {
        "local_pattern": [{"value": 0.31, "unit": "logit", "n": 24, "outputs": 2}],
        "whole_image": [{"value": None, "unit": "logit", "n": 3, "outputs": 2}],
    },
    "not_tested": ["Marks smaller than about a thirtieth of the image's side."],
}
