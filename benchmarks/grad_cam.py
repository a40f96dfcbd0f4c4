"""Grad-CAM against a plain inference forward, ours and the peers', in one process on one machine.

Every tool is timed in interleaved pairs with the plain forward, each pair in a random order; a ratio is taken within the
pair. Reported is the median ratio with its 95 % bootstrap interval. Writes docs/benchmarks.md. Run by `make bench`.
"""

import argparse
import importlib.metadata
from pathlib import Path

import captum.attr
import numpy as np
import torch
import torchvision
from pytorch_grad_cam import GradCAM as PytorchGradCam
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torchcam.methods import GradCAM as TorchCam

import seewhy as sw
from pairs import interval, measure, processor

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
GOAL = {1: 1.10, 8: 1.05}


def models():
    """Name -> wrapped model; resnet50 has random weights, which cost the same."""
    torch.manual_seed(0)
    yield "lite0", sw.load("lite0")
    yield "resnet50", sw.wrap(torchvision.models.resnet50(weights=None).eval(), size=224, **IMAGENET)


def contestants(model, x):
    """Name -> a call that gives one Grad-CAM per image; the peers are told the class, we settle it in the same forward."""
    module, layer = model.module, dict(model.module.named_modules())[model.default_layer().name]
    shape = (1, -1, 1, 1)
    z = (x - torch.tensor(model.mean).view(shape)) / torch.tensor(model.std).view(shape)
    with torch.inference_mode():
        chosen = module(z).argmax(1).tolist()
    classes = torch.tensor(chosen)
    captum_cam = captum.attr.LayerGradCam(module, layer)
    pytorch_cam = PytorchGradCam(model=module, target_layers=[layer])
    targets = [ClassifierOutputTarget(int(c)) for c in chosen]

    def plain():
        with torch.inference_mode():
            return module(z)

    def seewhy():
        return sw.explain(model, x, "grad_cam")

    def captum_():
        return captum_cam.attribute(z, target=classes)

    def grad_cam():
        return pytorch_cam(input_tensor=z, targets=targets)

    def torchcam():
        with TorchCam(module, target_layer=layer) as extractor:
            return extractor(chosen, module(z))

    return {"plain forward": plain, "seewhy": seewhy, "captum": captum_, "grad-cam": grad_cam, "torchcam": torchcam}


def rows(pairs):
    """One table row per model, batch and tool."""
    for name, model in models():
        for batch in (1, 8):
            x = torch.rand(batch, 3, 224, 224, generator=torch.Generator().manual_seed(1))
            calls = contestants(model, x)
            plain = calls.pop("plain forward")
            for tool, call in calls.items():
                for _ in range(2):  # warm-ups
                    plain()
                    call()
                seconds = measure((plain, call), pairs)
                ratios = seconds[:, 1] / seconds[:, 0]
                low, high = interval(ratios)
                goal = f"{GOAL[batch]:.2f}" if tool == "seewhy" else ""
                milliseconds = 1000 * np.median(seconds[:, 1]) / batch
                cells = (
                    name,
                    batch,
                    tool,
                    f"{np.median(ratios):.2f}",
                    f"{low:.2f} to {high:.2f}",
                    goal,
                    f"{milliseconds:.0f}",
                )
                row = "| " + " | ".join(map(str, cells)) + " |"
                print(row, flush=True)
                yield row


def main():
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=31, help="at least 25 for the page")
    pairs = parser.parse_args().pairs
    found = list(rows(pairs))
    packages = ("seewhy", "torch", "torchvision", "timm", "captum", "grad-cam", "torchcam")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    PAGE.write_text(
        "\n".join(
            [
                "# Grad-CAM against a plain forward and the peers",
                "",
                "Written by `make bench`. Time of one call that gives a Grad-CAM of every image in the batch, as a ratio to",
                "a plain inference forward of the same batch in the same pair; float32, 224 px, default layer. The peers",
                "are told the class; seewhy settles the predicted class in the same forward, checks the input, restores the",
                "network and gathers the evidence, and all of that is in its time. It lays images out channels-last and runs",
                "a batch in parts of the size that it has timed as the fastest on this machine; the plain forward does",
                "neither, which is why a ratio can be below 1.",
                f"Median over {pairs} interleaved pairs in one process with its 95 % bootstrap interval.",
                "",
                f"Machine: {processor()}, {torch.get_num_threads()} threads. Versions: {versions}.",
                "",
                "| network | batch | tool | x plain forward | 95 % interval | goal | ms per image |",
                "|---|---|---|---|---|---|---|",
                *found,
                "",
            ]
        ),
        "utf-8",
    )
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
