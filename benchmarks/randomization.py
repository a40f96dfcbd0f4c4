"""One randomized step of the model randomization check, ours against Quantus, in one process on one machine.

A step is: the weights of one more part randomized from the output down, maps of all images on that network, their rank
correlation with the trained ones. Both tools explain the same images of the same classes on lite0 (Quantus through the
user's own function, as it wants it: plain autograd for the gradient, hooks for Grad-CAM). Quantus randomizes module by
module, we stage by stage, so a step of each is timed, in interleaved pairs in random order; a ratio is taken within the
pair. The whole default run stands beside it as what it is: less work. Quantus is in the extra `bench`.
Writes its part of docs/benchmarks-checks.md, between the markers.
"""

import argparse
import platform
import time
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
import quantus
import torch

import seewhy as sw
from seewhy.checks.cascade import Cascade
from seewhy.maps import same_steps
from seewhy.randomization import stages_of
from seewhy.similarity import rank_correlation
from seewhy.target import PREDICTED

warnings.filterwarnings("ignore")
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks-checks.md"
START, END = "<!-- randomization -->", "<!-- /randomization -->"
STEPS = 5  # of Quantus in a round; every one runs the whole network
GOAL = {"gradient": 1.4, "grad_cam": 3.0}


def explanations(model, method):
    """What Quantus is given: numpy maps (N, 1, H, W) of normalized images by plain torch."""
    layer_name = model.default_layer().name

    def gradient(model, inputs, targets, **_):
        x = torch.as_tensor(inputs).clone().requires_grad_()
        picked = model(x).gather(1, torch.as_tensor(targets).view(-1, 1)).sum()
        return torch.autograd.grad(picked, x)[0].sum(1, keepdim=True).numpy()

    def grad_cam(model, inputs, targets, **_):
        kept = []
        layer = dict(model.named_modules())[layer_name]
        handle = layer.register_forward_hook(lambda _m, _i, output: kept.append(output))
        picked = model(torch.as_tensor(inputs)).gather(1, torch.as_tensor(targets).view(-1, 1)).sum()
        handle.remove()
        slope = torch.autograd.grad(picked, kept[0])[0]
        cam = (slope.mean((2, 3), keepdim=True) * kept[0]).sum(1, keepdim=True)
        size = inputs.shape[2:]
        drawn = torch.nn.functional.interpolate(cam, size, mode="bilinear").detach()
        return drawn.abs().numpy()  # Quantus raises on maps that are negative everywhere; its time is the same

    return {"gradient": gradient, "grad_cam": grad_cam}[method]


def quantus_steps(model, x, method, steps):
    """A call of Quantus's own run that ends after some steps, and when each of its explanations began."""
    shape = (1, -1, 1, 1)
    z = ((x - torch.tensor(model.mean).view(shape)) / torch.tensor(model.std).view(shape)).numpy()
    classes = model.predict(x).argmax(1).numpy()
    metric = quantus.MPRT(abs=False, normalise=False, disable_warnings=True)
    stamps = []
    explain = explanations(model, method)

    def timed(**keywords):
        stamps.append(time.perf_counter())
        if len(stamps) > steps + 1:
            raise EnoughError
        return explain(**keywords)

    def call():
        stamps.clear()
        with suppress(EnoughError):
            metric(
                model.module, z, classes, explain_func=timed, explain_func_kwargs={}, device="cpu", batch_size=len(x)
            )

    return call, stamps


class EnoughError(Exception):
    """Ends Quantus's run after some of its steps, which all cost the same."""


def our_steps(model, x, method):
    """A generator of steps, each with its similarity."""
    maps = sw.bind(method)
    found = maps(model, x, PREDICTED)
    cascade = Cascade(model, x, found.target, same_steps(maps, found), stages_of(model, x, found.target), 0, False)

    def steps():
        with model.guarded():
            for step in cascade.steps("cascading"):
                yield rank_correlation(found.raw, step.raw)
            yield rank_correlation(found.raw, cascade.full(0).raw)

    return steps


def measure(model, x, method, rounds):
    """Seconds a step (rounds, 2) of ours and Quantus; the runs are interleaved, each round in a random order."""
    steps, (quantus_run, stamps) = our_steps(model, x, method), quantus_steps(model, x, method, STEPS)
    order, ours, theirs = np.random.default_rng(0), [], []

    def run_ours():
        begun = time.perf_counter()
        count = sum(1 for _ in steps())
        ours.append((time.perf_counter() - begun) / count)

    def run_theirs():
        quantus_run()
        theirs.append((stamps[-1] - stamps[1]) / (len(stamps) - 2))  # the first explanation is of the trained network

    for _ in range(rounds):
        for place in order.permutation(2):
            (run_ours, run_theirs)[place]()
    layers = sum(hasattr(m, "reset_parameters") for m in model.module.modules())
    return np.array(ours), np.array(theirs), layers


def interval(ratios, draws=10_000):
    """95 % bootstrap interval of the median."""
    generator = np.random.default_rng(0)
    medians = np.median(generator.choice(ratios, (draws, len(ratios))), axis=1)
    return np.percentile(medians, [2.5, 97.5])


def rows(count, rounds):
    """Table rows, one a method."""
    model = sw.load("lite0")
    x = torch.rand(count, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    for method in ("grad_cam", "gradient"):
        ours, theirs, layers = measure(model, x, method, rounds)
        ratios = theirs / ours
        low, high = interval(ratios)
        print(f"{method}: ours {ours.round(3)} s a step, Quantus {theirs.round(3)}", flush=True)
        begun = time.perf_counter()
        found = sw.checks.model_randomization(model, x, PREDICTED, sw.bind(method))
        whole = time.perf_counter() - begun
        cells = (
            method,
            rounds,
            f"{np.median(ratios):.2f} ({low:.2f} to {high:.2f})",
            f"{GOAL[method]:.1f}",
            f"{np.median(ours):.2f} s, {np.median(theirs):.2f} s",
            f"{whole:.0f} s ({len(found.details['steps'])} networks), {np.median(theirs) * layers:.0f} s ({layers} layers)",
        )
        row = "| " + " | ".join(map(str, cells)) + " |"
        print(row, flush=True)
        yield row


def write(text):
    """Put this script's part into the page; what others wrote there stays."""
    page = PAGE.read_text() if PAGE.exists() else "# Benchmarks of the checks\n"
    part = f"{START}\n{text}\n{END}\n"
    if START in page:
        before, _, rest = page.partition(START)
        page = before + part + rest.partition(END)[2].lstrip("\n")
    else:
        page = page.rstrip("\n") + "\n\n" + part
    PAGE.write_text(page)


def main():
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=8, help="pairs of runs")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    table = "\n".join(rows(given.images, given.rounds))
    write(
        f"""## Randomization

One randomized step on lite0, {given.images} images of 224 x 224, {given.threads} threads, {platform.machine()}, torch
{torch.__version__}, Quantus {quantus.__version__}: weights randomized, maps of all images, rank correlation (signed, without
normalization in both). Runs are interleaved in random order; a ratio is taken within a pair of runs, its median with a 95 %
bootstrap interval. For Grad-CAM we keep what the stages below the randomized ones return, exactly; for the gradient
nothing can be kept. The last column is the whole check as each tool runs it, ours by stages (with three random networks, a
null, three similarities and controls), Quantus's by layers (one similarity, its time from its steps): other amounts of
work, not a ratio.

| method | pairs | Quantus / ours, a step | goal | median step, ours and Quantus | whole run, ours and Quantus |
|---|---|---|---|---|---|
{table}

By `python benchmarks/randomization.py --images {given.images} --rounds {given.rounds}`."""
    )


if __name__ == "__main__":
    main()
