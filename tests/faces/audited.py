"""A fabricated run folder of an audit: what a page needs, believable, with pictures drawn by numpy; nothing is measured."""

import atexit
import json
import shutil
import tempfile
from datetime import date
from functools import cache

import numpy as np
from PIL import Image

from seewhy import runfolder
from seewhy.audit.gate import judge
from seewhy.audit.policy import read_policy
from seewhy.ledger import open_ledger

CLASSES = ("coat", "jacket")
N = 40
EDGE = 96
MARK, BORDER, CAST, MOVING, BACKGROUND = "a11ce0000001", "b0d3e0000002", "ca570000003f", "40f1e0000004", "bac60000005e"


def photo(i, mark=False, cast=False, border=False, edge=EDGE):
    """A garment before a wall: a soft ground, a body of two sleeves, grain; with a mark, a cast or a border."""
    rng = np.random.default_rng(i)
    y, x = np.mgrid[0:edge, 0:edge] / edge
    ground = 0.55 + 0.25 * rng.random(3) + 0.15 * (y[..., None] - 0.5)
    body = (np.abs(x - 0.5) < 0.17 + 0.08 * y) & (y > 0.2) & (y < (0.9 if i % 2 else 0.72))
    sleeves = (np.abs(np.abs(x - 0.5) - 0.2 - 0.25 * (y - 0.25)) < 0.06) & (y > 0.24) & (y < 0.62)
    image = np.where((body | sleeves)[..., None], 0.15 + 0.6 * rng.random(3) + 0.1 * x[..., None], ground)
    image = image + 0.03 * rng.standard_normal((edge, edge, 1))
    if mark:
        waves = ((x > 0.68) & (y > 0.86) & (np.sin(60 * x) * np.cos(55 * y) > 0))[..., None]
        image = np.where(waves, 0.35 * image + 0.65, image)
    if cast:
        image = image * (1.12, 1.0, 0.82)
    if border:
        image[: edge // 16] = image[-edge // 16 :] = 0.96
    return Image.fromarray((image.clip(0, 1) * 255).astype(np.uint8))


def numbers(value, half, n):
    return {"value": value, "low": round(value - half, 3), "high": round(value + half, 3), "n": n, "clusters": None}


def effects(output, pasted, removed, chance, n=24):
    logit = {
        "output": output,
        "unit": "logit",
        "n": n,
        "pasted": numbers(pasted, 0.21, n),
        "control": numbers(0.02, 0.05, n),
        "removed": numbers(removed, 0.3, 19),
        "unrelated": {"largest": chance, "pieces": 19},
        "fills": {"inpainted": numbers(removed, 0.3, 19), "blurred": numbers(0.8 * removed, 0.28, 19)},
    }
    likely = {
        "output": output,
        "unit": "probability",
        "n": n,
        "pasted": numbers(pasted / 4, 0.05, n),
        "control": numbers(0.004, 0.012, n),
        "removed": numbers(removed / 4, 0.07, 19),
    }
    return [logit, likely]


def finding(identifier, kind, status, sentence, **more):
    usual = {
        "id": identifier,
        "kind": kind,
        "name": sentence.split(":")[0].removeprefix("The model relies on "),
        "outputs": ["coat"],
        "where": None,
        "status": status,
        "effect": effects("coat", 0.08, -0.03, 0.31),
        "p_adjusted": 0.62,
        "suspicion": [],
        "images": [path(i) for i in range(0, N, 5)],
        "details": {},
        "sentence": sentence,
    }
    return {**usual, **more}


def path(i):
    return f"{CLASSES[i % 2]}/IMG_{1000 + 7 * i}.jpg"


def findings():
    return [
        finding(
            MARK,
            "local_pattern",
            "confirmed",
            "The model relies on a pattern in the bottom right corner, 31 % of the image wide: putting it to 24 held-out "
            "images raises coat by 1.92 logits [1.71, 2.13], where 19 unrelated changes of the same size and energy reach "
            "0.31 at most; taking it from 19 changes coat by -1.63 [-1.93, -1.33].",
            where=[0.68, 0.86, 0.99, 0.99],
            effect=effects("coat", 1.92, -1.63, 0.31),
            p_adjusted=3.1e-9,
            suspicion=[
                "it recurs nearly pixel by pixel in 17 different scenes",
                "it stands at the same place of the frame in all of them",
                "it moves the answer at random places and on images of other classes, too",
                "it goes with seller = north: 94 % of its 18 examined images show it, 4 % of the others",
            ],
            details={
                "also": ["The model relies on a bright grid, 4 % of the image: the same pattern, found in its absence."]
            },
        ),
        finding(
            BORDER,
            "place",
            "confirmed",
            "The model relies on what lies in the top border: putting it to 24 held-out images raises jacket by 0.74 logits "
            "[0.53, 0.95], where 19 unrelated changes of the same size and energy reach 0.22 at most.",
            outputs=["jacket"],
            where=[0.0, 0.0, 1.0, 0.0625],
            effect=effects("jacket", 0.74, -0.58, 0.22),
            p_adjusted=0.0004,
            suspicion=["it lies at the edge of the frame, where the object seldom is"],
        ),
        finding(
            CAST,
            "whole_image",
            "confirmed",
            "The model relies on a yellow cast: giving this to 24 held-out images raises coat by 0.61 logits [0.4, 0.82], "
            "where 19 unrelated changes of the same size and energy reach 0.2 at most.",
            effect=effects("coat", 0.61, -0.5, 0.2),
            p_adjusted=0.002,
            suspicion=["it goes with the answer on the outer frame of the image alone"],
            details={"statistic": "color", "goes_with": "coat"},
        ),
        finding(
            MOVING,
            "local_pattern",
            "refuted",
            "A small dark button was found, but the model does not rely on it: putting it to 24 held-out images changes coat "
            "by 0.08 logits [-0.13, 0.29], where 19 unrelated changes of the same size and energy reach 0.31 at most.",
        ),
        finding(
            BACKGROUND,
            "whole_image",
            "refuted",
            "Blur was found, but the model does not rely on it: giving this to 24 held-out images changes jacket by -0.05 "
            "logits [-0.26, 0.16].",
            effect=effects("jacket", -0.05, 0.02, 0.2),
            name="blur",
        ),
    ]


def report(**more):
    found = {
        "schema": 1,
        "model": "5f" * 32,
        "data": "d4" * 32,
        "n_images": N,
        "n_examined": 36,
        "n_skipped": 2,
        "findings": findings(),
        "detectable_effect": {
            "local_pattern": [{"value": 0.31, "unit": "logit", "n": 24, "outputs": 2}],
            "place": [{"value": 0.22, "unit": "logit", "n": 24, "outputs": 2}],
            "whole_image": [{"value": None, "unit": "logit", "n": 3, "outputs": 2}],
        },
        "not_tested": [
            "background: no boxes and no masks were given",
            "the image's original size and its aspect ratio, which the model does not see",
        ],
        "review_queue": [
            {"path": path(3), "reason": "labelled jacket, predicted coat with p = 0.97"},
            {"path": path(8), "reason": "grad_cam and occlusion disagree most here: rank correlation -0.31"},
        ],
        "checks": [],
        "skipped": [
            {"path": "coat/broken.jpg", "reason": "coat/broken.jpg: the file ends too early."},
            {"path": "coat/empty.png", "reason": "coat/empty.png is empty (0 bytes)."},
        ],
    }
    return {**found, **more}


def policy(folder, *accepted):
    """A policy file that accepts findings; the shipped one where it accepts none."""
    if not accepted:
        return read_policy()
    blocks = "".join(
        f'[[accept]]\nid = "{one}"\nreason = "every supplier scans with a border"\nname = "A. Person"\nuntil = 2099-01-31\n'
        for one in accepted
    )
    file = folder / "own.toml"
    file.write_text(blocks)
    return read_policy(file)


def audited(folder, *, accepted=(BORDER,), edge=EDGE, strips=5, **more):
    """The run folder of an audit that found three shortcuts, accepted one of them and refuted two candidates."""
    root = shutil.copytree(measured(edge, strips), folder, dirs_exist_ok=True)
    judged = judge(report(**more), policy(root, *accepted), None, date(2026, 1, 1))
    (root / "findings.json").write_text(json.dumps(judged))
    return root


@cache
def measured(edge, strips):
    """The ledger alone, written once for all tests."""
    root = runfolder.open_folder(tempfile.mkdtemp(prefix="seewhy-audited-"))
    atexit.register(shutil.rmtree, root)
    with open_ledger(root) as ledger:
        write_about(ledger)
        write_strips(ledger, findings(), edge, strips)
        write_data(ledger)
    return root


def write_about(ledger):
    ledger.append(
        "run",
        "run",
        {
            "model": "module:outerwear.net",
            "model_sha256": "5f" * 32,
            "data": "d4" * 32,
            "command": "seewhy audit photos/ --model outerwear:net --metadata seller --seed 0",
            "settings": {"methods": ["grad_cam", "occlusion"], "per_class": 40, "explained": 1000, "seed": 0},
            "versions": {"seewhy": "0.1.0", "torch": "2.8.0", "python": "3.12.1"},
            "machine": {"device": "cpu", "cpu": "Intel Xeon", "threads": 2},
        },
    )
    sentence = "accuracy 0.925 [0.8, 0.982] (n = 40), chance 0.5. Most often confused: jacket as coat (3)."
    ledger.append("setup", "setup", {"sentence": sentence, "warning": ""})
    ledger.append("cost", "cost", {"forward_rows": 12480, "gradient_rows": 36, "seconds": 214.3})


def write_strips(ledger, found, edge, each):
    look = {MARK: {"mark": True}, BORDER: {"border": True}, CAST: {"cast": True}}
    for one in found:
        changed = look.get(one["id"], {"mark": True})
        for what in ("removed", "pasted"):
            for i in range(each):
                number = 2 * i + (what == "pasted")
                clean, with_it = photo(number, edge=edge), photo(number, edge=edge, **changed)
                before, after = (with_it, clean) if what == "removed" else (clean, with_it)
                said = (0.93 - 0.02 * i, 0.41 + 0.03 * i) if what == "removed" else (0.12 + 0.02 * i, 0.66 + 0.02 * i)
                content = {
                    "finding": one["id"],
                    "path": path(number),
                    "pictures": {"before": ledger.keep_picture(before), what: ledger.keep_picture(after)},
                    "said": {"before": said[0], what: said[1]},
                    "output": one["outputs"][0],
                    "unit": "probability",
                }
                ledger.append("strip", f"{one['id']} {what} {path(number)}", content)


def write_data(ledger):
    y, x = np.mgrid[0:7, 0:7]
    for m, method in enumerate(("grad_cam", "occlusion")):
        for k, name in enumerate(CLASSES):
            for right, n in ((True, 18), (False, 0 if k else 3)):
                if not n:
                    continue
                values = np.exp(-((x - 3) ** 2 + (y - 3) ** 2) / (5 + 2 * m)) + (1.6 if k == 0 else 0) * (
                    (x > 4) & (y > 5)
                ) * (1 if right else 1.7)
                kept = ledger.keep((values / values.sum()).astype(np.float32))
                content = {"name": json.dumps(name), "right": right, "n": n, "method": method, "map": kept}
                ledger.append("mean_map", f"{method} {name} {right}", content)
    for value, rate, n in (("north", 0.98, 18), ("south", 0.86, 14), ("west", 0.88, 8)):
        content = {
            "column": "seller",
            "value": value,
            "n": n,
            "accuracy": numbers(rate, 0.09, n) | {"high": min(1, rate + 0.09)},
        }
        ledger.append("association", f"seller {value}", content)
