"""seewhy layers."""

from pathlib import Path

import typer

from seewhy.faces.cli import options
from seewhy.faces.cli.console import progress_bar, result_json, say, table


def layers(
    model: str = options.MODEL,
    weights: Path | None = options.WEIGHTS,
    mean: str | None = options.MEAN,
    std: str | None = options.STD,
    size: str | None = options.SIZE,
    crop: float | None = options.CROP,
    framing: str | None = options.FRAMING,
    task: str | None = options.TASK,
    everything: bool = typer.Option(False, "--all", help="Also the layers where no map can be taken, and why not."),
    device: str = options.DEVICE,
    precision: str = options.PRECISION,
    as_json: bool = options.JSON,
) -> None:
    """List where in a network a map can be taken, found by running it; the default is marked."""
    pixels = options.pixels(mean, std, size, crop, framing)
    network = options.load_model(model, weights, None, device, None, precision, task=task, pixels=pixels)
    with progress_bar() as step:
        found = network.layers(lambda done, total: step("testing layers", done, total))
    default = network.default_layer()
    if as_json:
        result_json({"default": default.name, "layers": found.to_dicts()})
        return
    shown = [layer for layer in found if everything or (layer.usable and layer.trunk)]
    rows = []
    for layer in shown:
        grid = " x ".join(map(str, layer.form.grid)) if layer.form else ""
        said = {True: "yes", False: "no", None: ""}
        gradient = "" if layer.gradient is None else f"{layer.gradient:.1e}"
        mark = "* " if layer.name == default.name else "  "
        kind = layer.form.kind if layer.form else ""
        tested = (said[layer.trunk], said[layer.in_place], gradient)
        rows.append((mark + layer.name, kind, grid, str(layer.channels or ""), *tested, layer.why_not or "yes"))
    table(("  layer", "kind", "grid", "channels", "trunk", "in place", "gradient", "usable"), rows)
    say(f"{len(shown)} of {len(found)} layers shown; * is the default ('{default.name}').")
