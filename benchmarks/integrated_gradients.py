"""Integrated Gradients on the six demo photos: rows, gap and path error, beside captum's rules.

With --truth STEPS also the distance to a midpoint rule of so many steps. Writes docs/benchmarks-integrated-gradients.md.
Run by `make bench`.
"""

import argparse
import importlib.metadata
import tempfile
from pathlib import Path

import captum.attr
import torch

import seewhy as sw
from seewhy.demo.photos import copy_photos

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks-integrated-gradients.md"
SHOWN = ("cat.png", "coffee.png", "rocket.jpg", "motorcycle.png", "flower.jpg", "temple.jpg")
OURS = {"seewhy, default": {}, "seewhy, compliance": {"preset": "compliance"}}
RULES = {"riemann_right": (50,), "riemann_trapezoid": (50,), "gausslegendre": (50,)}


def relative_l1(ours, truth):
    """Distance of two maps as a share of the true one."""
    return float((ours - truth).abs().sum() / truth.abs().sum())


def of_captum(model, e, rule, steps):
    """Captum's map and its halved rule's, in the network's own space; its baseline there is our black."""
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (model.mean, model.std))
    z, black = (e.images - mean) / std, (torch.zeros_like(e.images) - mean) / std
    explainer, target = captum.attr.IntegratedGradients(model.module), e.targets[0]["index"]
    maps = [
        explainer.attribute(z, black, target, n_steps=n, method=rule, internal_batch_size=4).sum(1).float().detach()
        for n in (steps, steps // 2)
    ]
    change = e.evidence["score_difference"]
    gap = float((maps[0].sum() - change).abs() / change.abs())
    return maps[0], gap, relative_l1(maps[1], maps[0])


def rows(steps):
    """One table row per photo and rule: rows, gap, path error (and the true error, where steps are given), converged."""
    model = sw.load("lite0")
    for path in copy_photos(Path(tempfile.mkdtemp()), SHOWN):
        truth = sw.explain(model, path, "integrated_gradients", rule="midpoint", steps=steps or 1)
        for name, given in OURS.items():
            e = sw.explain(model, path, "integrated_gradients", **given)
            evidence = {key: float(values[0]) for key, values in e.evidence.items()}
            errors = [evidence["completeness_gap_relative"], evidence["path_error"]]
            errors += [relative_l1(e.raw, truth.raw)] if steps else []
            yield path.stem, name, int(evidence["gradient_rows"]), errors, "yes" if evidence["converged"] else "no"
        for rule, counts in RULES.items():
            for n in counts:
                raw, *errors = of_captum(model, truth, rule, n)
                errors += [relative_l1(raw, truth.raw)] if steps else []
                yield path.stem, f"captum, {rule}", n, errors, "not said"


def main():
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--truth", type=int, default=0, help="steps of the midpoint rule that is taken for the truth")
    steps = parser.parse_args().truth
    lines = []
    for photo, rule, count, errors, converged in rows(steps):
        percent = [f"{100 * value:.1f} %" for value in errors]
        lines.append("| " + " | ".join([photo, rule, str(count), *percent, converged]) + " |")
        print(lines[-1], flush=True)
    heads = ["photo", "rule", "gradient rows", "gap", "path error", *(["true error"] if steps else []), "converged"]
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("seewhy", "torch", "timm", "captum"))
    PAGE.write_text(
        "\n".join(
            [
                "# Integrated Gradients on the six demo photos",
                "",
                "Written by `make bench`. EfficientNet-Lite0, black baseline, the predicted class, float32. The gap is",
                "|sum of the map - change of the score| / |change|; the path error is the estimated relative L1",
                "distance to the integral, 1/sqrt(3) of that to the map of half of the nodes (for captum that distance",
                "itself, from a second run with half of the steps, whose rows are not counted here).",
                *(
                    [f"The true error is the relative L1 distance to a midpoint rule of {steps} steps."]
                    if steps
                    else []
                ),
                "`converged` is what the tool itself says: the default asks for 5 % and 5 %, compliance for 1 % and 5 %.",
                "",
                f"Versions: {versions}.",
                "",
                "| " + " | ".join(heads) + " |",
                "|" + "---|" * len(heads),
                *lines,
                "",
            ]
        ),
        "utf-8",
    )
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
