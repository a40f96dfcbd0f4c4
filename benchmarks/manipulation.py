"""The battery against manipulated networks: how many it suspects, and how many honest ones it accuses.

Honest: the same network after the same tuning (images, labels, seed, steps) without the attack's term. Resumable model by
model: one JSON line each in --results; run it again to go on. Writes docs/benchmarks-manipulation.md.
"""

import argparse
import functools
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor, nn

import seewhy as sw
from manipulation_page import page
from planted_images import SCENES, bases, quarters, random_crop, read_task, scene
from seewhy.checks import CheckResult
from seewhy.model import VisionModel
from seewhy.registry import CHECKS
from seewhy.target import PREDICTED, Target
from seewhy.trust.binding import given_to

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks-manipulation.md"
TASKS = {"digits": 10, "scenes": 5, "shapes": 3}  # of the small networks -> classes
SEEDS = {"digits": 8, "scenes": 8, "shapes": 2, "lite0": 1}  # networks of each task
SIDE, LEARNED = 32, 1600  # pixels; images that a small network is trained on
TUNED, JUDGED = 400, 60  # images that are tuned on, and others on which attack and battery are judged
CORNER = (0.0, 0.0, 0.3, 0.3)
ATTACKS = (
    "frame",
    "corner",
    "top_k",
    "center_mass",
    "active",
    "two_channels",
    "on_manifold",
    "frame gently",
    "corner gently",
)
ON_LITE0 = ("two_channels", "corner")
SMALL = {"train_from": "6", "steps": 150, "learning_rate": 3e-3, "batch": 32, "strength": 3.0}
LITE0 = {"train_from": "blocks.5", "steps": 120, "learning_rate": 4e-4, "batch": 20, "strength": 1.2}
Images = tuple[Tensor, Tensor]  # in [0, 1], and their classes


@dataclass(frozen=True)
class Case:
    """One network: what it was trained on, and what was done to it; honest: all of that but the attack."""

    task: str
    seed: int
    attack: str
    honest: bool

    @property
    def name(self) -> str:
        """What the case is called in results and tables."""
        return f"{self.task} {self.seed} {self.attack}{' honest' if self.honest else ''}"


def plan(tasks: list[str]) -> Iterator[Case]:
    """Every attack and its honest twin, network by network."""
    for seed in range(max(SEEDS.values())):
        for task in tasks:
            for attack in ON_LITE0 if task == "lite0" else ATTACKS:
                if seed < SEEDS[task]:
                    yield from (Case(task, seed, attack, honest) for honest in (False, True))


def run_case(case: Case, photos: Path | None) -> dict[str, object]:
    """Train (once a network), attack, and ask the battery; the reference is the network before."""
    begun = time.perf_counter()
    model, x, y, tuned = trained(case.task, case.seed, photos)
    method = "gradient" if case.attack == "on_manifold" else "grad_cam"
    record = {"case": case.name, **asdict(case), "method": method, "n": len(x) - tuned}
    changed = model
    if not (
        case.honest and case.attack in ("two_channels", "on_manifold")
    ):  # nothing is tuned: the honest one is as it was
        try:
            attacked = attack(case, model, x, y, tuned)
        except sw.RefusalError as error:
            return record | {"refused": str(error)}
        changed = attacked.model
        for one in (*attacked.moved, *attacked.kept):
            before = one.controls.get("before")
            record[one.name] = {"after": one.interval.value, "before": before and before.value}
    judged, info = x[tuned:], sw.registry.find_method(method)
    given = given_to("manipulation", info)
    found = CHECKS["manipulation"].function(changed, judged, PREDICTED, sw.bind(method), reference=model, **given)
    return record | told(found) | {"seconds": round(time.perf_counter() - begun, 1), "torch": torch.__version__}


def told(found: CheckResult) -> dict[str, object]:
    """What of a row is kept: the verdict, and every column with its interval."""
    columns = {one.name: one.interval.to_dict() for one in found.scores}
    beside = {name: control.value for name, control in found.scores[0].controls.items()}
    return {"verdict": str(found.verdict), "columns": columns, "beside": beside}


def attack(case: Case, model: VisionModel, x: Tensor, y: Tensor, tuned: int) -> sw.attacks.Attacked:
    """The changed copy. Tuned with the labels' cross entropy, as in the paper, all weights behind `train_from`."""
    if case.attack == "two_channels":
        return sw.attacks.two_channels(model, x[tuned:], PREDICTED, sw.bind("grad_cam"), region=CORNER)
    if case.attack == "on_manifold":
        return sw.attacks.on_manifold(model, x[tuned:], PREDICTED, sw.bind("gradient"))
    settings = dict(LITE0 if case.task == "lite0" else SMALL)
    seed = 100 * case.seed + ATTACKS.index(case.attack)
    settings |= {"labels": y, "tune_on": tuned, "seed": seed} | ({"strength": 0.0} if case.honest else {})
    maps = sw.bind("grad_cam", differentiable=True)
    if case.attack == "top_k":
        return sw.attacks.top_k_fooling(model, x, PREDICTED, maps, **settings)
    if case.attack == "center_mass":
        return sw.attacks.center_mass_fooling(model, x, PREDICTED, maps, **settings)
    if case.attack == "active":
        other = Target("index", "logit", (y + 1) % TASKS[case.task])
        return sw.attacks.active_fooling(model, x, Target("index", "logit", y), maps, other=other, **settings)
    settings |= {"strength": 1.0} if case.attack.endswith("gently") and not case.honest else {}
    region = CORNER if case.attack.startswith("corner") else "frame"
    return sw.attacks.location_fooling(model, x, PREDICTED, maps, region=region, **settings)


# -- networks and images ------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1)
def trained(task: str, seed: int, photos: Path | None) -> tuple[VisionModel, Tensor, Tensor, int]:
    """A network, images with their classes, and how many of them are tuned on."""
    if task == "lite0":
        model = sw.load("lite0", batch_size=8)
        x = photographs(model, photos)
        return model, x, model.predict(x).argmax(1), len(x) - JUDGED // 2
    learn, held = (drawn(task, n, seed, held_out=held) for n, held in ((LEARNED, False), (JUDGED, True)))
    module = from_scratch(*learn, TASKS[task], seed)
    model = sw.wrap(module, mean=(0.5,) * 3, std=(0.25,) * 3, size=SIDE, batch_size=64, name=f"small {task}")
    x, y = (torch.cat([a[:TUNED], b]) for a, b in zip(learn, held, strict=True))
    print(
        f"{task} {seed}: accuracy {float((model.predict(held[0]).argmax(1) == held[1]).float().mean()):.2f}", flush=True
    )
    return model, x, y, TUNED


def photographs(model: VisionModel, folder: Path) -> Tensor:
    """Photos of a folder as the network is shown them."""
    from seewhy.explanation.inputs import read_inputs

    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    return read_inputs(model, [str(file) for file in files[:: max(1, len(files) // (3 * JUDGED // 2))]])[0]


def drawn(task: str, n: int, seed: int, *, held_out: bool) -> Images:
    """Digits that fill the image, digits somewhere in a photo, or shapes cut out of one photo upon another."""
    draw = np.random.default_rng([seed, held_out])
    if task == "shapes":
        found = bases(read_task("shape3"), SIDE, n, held_out, seed, None, draw)
        return images_of([one.pixels / 255 for one in found], [one.label for one in found])
    digits = load_digits()
    mine = np.random.default_rng(seed).permutation(np.flatnonzero(digits.target < TASKS[task]))[held_out::2]
    chosen = draw.choice(mine, n)
    if task == "digits":
        return images_of([enlarged(digits.images[k], SIDE) for k in chosen], digits.target[chosen])
    names = np.random.default_rng(seed).permutation(sorted(SCENES))[held_out::2]
    behind = [
        random_crop(scene(name), box, SIDE, draw) for name in names for _, box in quarters(name) for _ in range(4)
    ]
    return images_of([within(digits.images[k], behind, draw) for k in chosen], digits.target[chosen])


def within(digit: np.ndarray, behind: list[np.ndarray], draw: np.random.Generator) -> np.ndarray:
    """A white digit, about half a side large, somewhere upon a darkened photo."""
    found = 0.6 * behind[draw.integers(len(behind))][:, :: draw.choice((-1, 1))] / 255
    side = int(draw.integers(13, 18))
    y, x = draw.integers(0, SIDE - side, 2)
    ink, under = enlarged(digit, side), found[y : y + side, x : x + side]
    found[y : y + side, x : x + side] = under * (1 - ink) + ink
    return found


def enlarged(digit: np.ndarray, side: int) -> np.ndarray:
    """One of scikit-learn's 8 x 8 digits as (side, side, 3) in [0, 1]."""
    picture = Image.fromarray((digit / 16 * 255).astype(np.uint8)).resize((side, side), Image.Resampling.BILINEAR)
    return np.repeat(np.asarray(picture)[..., None] / 255, 3, axis=2)


def images_of(pixels: list[np.ndarray], labels: list[float]) -> Images:
    """As tensors (n, 3, side, side) in [0, 1], and (n,)."""
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float().contiguous(), torch.tensor(labels).long()


def network(classes: int) -> nn.Sequential:
    """Four convolutions to a grid of 8 x 8 that see all of the image, the mean of each channel, one linear layer."""
    layers: list[nn.Module] = []
    for before, after, stride, apart in ((3, 12, 2, 1), (12, 24, 2, 1), (24, 32, 1, 1), (32, 32, 1, 2)):
        convolution = nn.Conv2d(before, after, 3, stride, apart, dilation=apart, bias=False)
        layers += [convolution, nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, classes))


def from_scratch(x: Tensor, y: Tensor, classes: int, seed: int, epochs: int = 10, rate: float = 0.01) -> nn.Module:
    """The small network, trained."""
    x = (x - 0.5) / 0.25
    with torch.random.fork_rng([]), torch.enable_grad():
        torch.manual_seed(seed)
        module = network(classes)
        optimizer = torch.optim.AdamW(module.parameters(), rate, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * (len(x) // 32))
        for _ in range(epochs):
            for rows in torch.randperm(len(x))[: len(x) // 32 * 32].view(-1, 32):
                loss = nn.functional.cross_entropy(module(x[rows]), y[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
    module.zero_grad()
    return module.eval()


def main() -> None:
    """Run what is not in the results yet, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("manipulation.jsonl"))
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=[*TASKS, "lite0"])
    parser.add_argument("--photos", type=Path, help="a folder of photos, for lite0")
    parser.add_argument("--page", action="store_true", help="only write the page")
    given = parser.parse_args()
    sw.checks()  # fills the registry
    done = [json.loads(line) for line in given.results.read_text().splitlines()] if given.results.exists() else []
    for case in [] if given.page else plan(given.tasks):
        if case.name not in {record["case"] for record in done}:
            record = run_case(case, given.photos)
            done.append(record)
            with given.results.open("a") as file:
                file.write(json.dumps(record) + "\n")
            print(case.name, record.get("verdict", record.get("refused")), record.get("seconds"), flush=True)
    PAGE.write_text(page(done))


if __name__ == "__main__":
    main()
