"""Which layer is found on every architecture, and the proof that its grid lies over the image as it should.

Resumable: one JSON line a network in --results; run it again to go on. Writes docs/coverage.md. Run by `make coverage`.
"""

import argparse
import gc
import importlib.metadata
import json
import time
from pathlib import Path

import torch
from torch import Tensor

import seewhy as sw
from networks import Network, every_network, quiet
from seewhy.explanation import Explanation, Status
from seewhy.forms import probe_images
from seewhy.layers import Layer
from seewhy.model import VisionModel

PAGE = Path(__file__).parents[1] / "docs" / "coverage.md"
SEEDS = 3
DIFFERENT = 1e-3  # relative L1 distance of the maps of two questions, from which on the question matters
QUADRANTS = ((0, 0), (0, 1), (1, 0), (1, 1))
METHODS = ("gradient", "occlusion", "grad_cam")
VERDICTS = ("right", "refused", "unproven", "wrong")


def examine(network: Network) -> dict:
    """One row of the table: the layer, three maps, the proof of the grid, whether the question matters, the verdict."""
    begun, computed = time.perf_counter(), time.process_time()
    record = {"source": network.source, "name": network.name, "version": _version(network)}
    try:
        torch.manual_seed(0)
        with quiet():
            model = network.build()
        record |= {"size": model.size[0], "parameters": sum(p.numel() for p in model.module.parameters())}
        x = probe_images((3, *model.size))[:1]
        maps = _maps(model, x, network.questions)
        record |= {method: str(e.status[0]) for method, e in maps.items()}
        record |= _judged(model, x, maps["grad_cam"], record, network.questions)
    except sw.SeewhyError as error:
        record |= {"verdict": "refused", "why": str(error)}
    except Exception as error:  # a crash is a wrong answer, and the run goes on
        record |= {"verdict": "wrong", "why": f"{type(error).__name__}: {error}"}
    spent = {"seconds": time.perf_counter() - begun, "cpu_seconds": time.process_time() - computed}
    return {**record, **{name: round(value, 1) for name, value in spent.items()}}


def _maps(model: VisionModel, x: Tensor, questions: tuple) -> dict:
    """Input methods first: they have an answer also where no layer has."""
    found = {}
    window = model.size[0] // 4
    given = {"gradient": {}, "occlusion": {"patch": window, "stride": window}, "grad_cam": {}}
    for method, parameters in given.items():
        found[method] = sw.explain(model, x, method, questions[0], **parameters)
    return found


def _judged(model: VisionModel, x: Tensor, first: Explanation, maps: dict, questions: tuple) -> dict:
    second = sw.explain(model, x, "grad_cam", questions[1])
    question = sw.target.resolve(questions[0], None, model.task)
    layer = model.default_layer(question, tuple(x.shape[1:]))
    proof, said = prove(model, layer)
    matters = float((first.raw - second.raw).abs().sum() / first.raw.abs().sum().clamp_min(1e-30))
    why = [f"{method}: {maps[method]}" for method in METHODS if maps[method] not in (Status.OK, Status.ALL_NEGATIVE)]
    why += [f"the question does not matter ({matters:.1e})"] if matters < DIFFERENT else []
    why += [said] if proof == "wrong" else []
    verdict = "wrong" if why else "right" if proof in ("activations", "gradient of a cell") else "unproven"
    return {
        "layer": layer.name,
        "kind": layer.form.kind,
        "grid": list(layer.form.grid),
        "prefix": layer.form.prefix,
        "trunk": layer.trunk,
        "proof": proof,
        "hits": said.partition(": ")[2] if verdict == "right" else "",
        "matters": matters,
        "verdict": verdict,
        "why": "; ".join(why) or (said if verdict == "unproven" else ""),
    }


def prove(model: VisionModel, layer: Layer) -> tuple[str, str]:
    """That the layer's grid lies over the image: by `activations`, by the `gradient of a cell`, `unproven` or `wrong`.

    A quadrant of the input is disturbed: the activations must change most in that quadrant (4 quadrants, mean of 3 seeds).
    Where random weights mix everything, the input gradient of the cell in the middle of a quadrant must weigh most there.
    `wrong` is a grid whose quadrants answer in the same other order in every seed: transposed, mirrored or shuffled.
    Also how many of the 12 single experiments said the same.
    """
    own, said = torch.arange(4), []
    for name, experiment in (("activations", _where_activations_change), ("gradient of a cell", _where_cells_look)):
        found = torch.stack([experiment(model, layer, seed) for seed in range(SEEDS)])
        largest = found.argmax(2)
        said.append(f"{name}: {int((largest == own).sum())} of {largest.numel()}")
        if bool((found.mean(0).argmax(1) == own).all()):
            return name, said[-1]
        if bool((largest == largest[0]).all()) and len(set(largest[0].tolist())) == 4:
            return "wrong", f"quadrants 0, 1, 2, 3 answer as {largest[0].tolist()} by {name}"
    return "unproven", "; ".join(said)


def _where_activations_change(model: VisionModel, layer: Layer, seed: int) -> Tensor:
    """Per disturbed quadrant of the input (rows), how much each quadrant of the grid changes, as a share: (4, 4)."""
    one, other = _images(model, seed)
    shown = one.repeat(5, 1, 1, 1)
    for q, quadrant in enumerate(QUADRANTS):
        rows, columns = _inside(quadrant, shown.shape[2:])
        shown[1 + q, :, rows, columns] = other[:, rows, columns]
    with torch.no_grad():
        cells = _cells(model, layer, shown)
    return _shares((cells[1:] - cells[:1]).abs().mean(1))


def _where_cells_look(model: VisionModel, layer: Layer, seed: int) -> Tensor:
    """Per quadrant (rows), how much the cell in its middle depends on each quadrant of the input, as a share: (4, 4)."""
    one, _ = _images(model, seed)
    found = []
    for quadrant in QUADRANTS:
        shown = one[None].clone().requires_grad_()
        cells = _cells(model, layer, shown)
        height, width = cells.shape[2:]
        row, column = (
            (side // 4, side - 1 - side // 4)[half] for side, half in zip((height, width), quadrant, strict=True)
        )
        direction = torch.randn(cells.shape[1], generator=torch.Generator().manual_seed(seed))
        (slope,) = torch.autograd.grad((cells[0, :, row, column] * direction).sum(), shown)
        found.append(slope[0].abs().sum(0))
    return _shares(torch.stack(found))


def _shares(values: Tensor) -> Tensor:
    """The mean of (R, h, w) over each quadrant as a share of the row's sum: (R, 4)."""
    means = torch.stack([values[(slice(None), *_inside(q, values.shape[1:]))].flatten(1).mean(1) for q in QUADRANTS], 1)
    return means / means.sum(1, keepdim=True)


def _images(model: VisionModel, seed: int) -> Tensor:
    """Two different pictures of noise, (2, C, h, w)."""
    generator = torch.Generator().manual_seed(100 + seed)
    coarse = torch.rand(2, 3, 16, 16, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=model.size, mode="bilinear")
    return 0.5 * smooth + 0.5 * torch.rand(2, 3, *model.size, generator=generator)


def _cells(model: VisionModel, layer: Layer, shown: Tensor) -> Tensor:
    """Activations (R, channels, *grid) at a layer, by a plain hook of our own: not the code that is examined."""
    kept, calls = [], []

    def hook(_module, _inputs, output):
        calls.append(output)
        if len(calls) == layer.site.which + 1:
            kept.append((output if isinstance(output, Tensor) else sw.capture.first_tensor(output)).clone())

    handle = layer.site.module.register_forward_hook(hook)
    try:
        model.forward(shown)
    finally:
        handle.remove()
    return layer.form.cells(kept[0]).float()


def _inside(quadrant: tuple[int, int], size) -> tuple[slice, slice]:
    """The rows and columns of a quadrant; a middle line belongs to none."""
    rows, columns = (
        slice(0, side // 2) if half == 0 else slice(side - side // 2, side)
        for half, side in zip(quadrant, size, strict=True)
    )
    return rows, columns


def _version(network: Network) -> str:
    return importlib.metadata.version(network.source.partition(".")[0])


def main():
    """Examine what is not in the results yet, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("coverage.jsonl"))
    parser.add_argument("--only", help="names that contain this, examined again, not recorded")
    arguments = parser.parse_args()
    done = (
        [json.loads(line) for line in arguments.results.read_text().splitlines()] if arguments.results.exists() else []
    )
    known = {(record["source"], record["name"], record["version"]) for record in done}
    for network in every_network():
        if arguments.only and arguments.only not in network.name:
            continue
        if not arguments.only and (network.source, network.name, _version(network)) in known:
            continue
        record = examine(network)
        print(json.dumps(record), flush=True)
        if not arguments.only:
            with arguments.results.open("a") as file:
                file.write(json.dumps(record) + "\n")
            done.append(record)
        gc.collect()
    if not arguments.only:
        PAGE.write_text(page(done))


def page(records: list[dict]) -> str:
    """The table: totals, then one line a network."""
    count = {verdict: sum(record["verdict"] == verdict for record in records) for verdict in VERDICTS}
    modules = {record["source"] for record in records if record["source"].startswith("timm.")}
    versions = sorted({f"{record['source'].partition('.')[0]} {record['version']}" for record in records})
    lines = [
        "# Which layer, on every architecture",
        "",
        f"Written by `make coverage` ({', '.join(versions)}, torch {importlib.metadata.version('torch')}). Random weights,",
        "10 classes, 224 pixels where the network takes them; nothing is configured, the layer is the one that",
        "`model.default_layer()` finds. Batch normalizations have the statistics of eight pictures of noise, and parameters",
        "that start as zeros got random numbers: an untrained head of zeros has no class to explain.",
        "",
        f"{len(records)} networks of {len(modules)} timm modules, torchvision and transformers: "
        + ", ".join(f"**{count[verdict]} {verdict}**" for verdict in VERDICTS)
        + ".",
        "",
        "- right: Grad-CAM, gradient and occlusion give a map, the question matters, and the grid is proven to lie over the",
        "  image: a disturbed quadrant of the input changes that quadrant of the grid most (by *activations*; mean of 3",
        "  seeds, and in how many of the 12 experiments), or the input gradient of a cell weighs most in its quadrant.",
        "- refused: a sentence in the place of a map. unproven: random weights mix everything, neither experiment tells.",
        "- wrong: a blank map, a map that does not depend on the question, a grid in another order, or a crash.",
        "",
        "| source | network | pixels | layer | kind | grid | other tokens | trunk | grid proven by | verdict |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for record in sorted(records, key=_place):
        grid = " x ".join(map(str, record.get("grid", [])))
        trunk = {True: "yes", False: "no", None: ""}[record.get("trunk")]
        proof = f"{record.get('proof', '')} {record.get('hits', '')}".strip()
        why = f": {record['why']}" if record["why"] else ""
        cells = [record["source"], record["name"], str(record.get("size", "")), f"`{record.get('layer', '')}`"]
        cells += [record.get("kind", ""), grid, str(record.get("prefix", "")), trunk, proof, record["verdict"] + why]
        lines.append("| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _place(record: dict) -> tuple[int, str, str]:
    """Where a record stands in the table: transformers, timm's modules, torchvision; by name."""
    library = record["source"].partition(".")[0]
    return ("transformers", "timm", "torchvision").index(library), record["source"], record["name"].lower()


if __name__ == "__main__":
    main()
