"""Every snippet of the documentation runs, and its generated parts are fresh. As a script: writes those parts again."""

import importlib.util
import json
import os
import re
import shlex
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from seewhy.faces.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
METHODS, CHECKS = ROOT / "docs" / "methods.md", ROOT / "docs" / "checks.md"


def methods_page():
    import seewhy as sw

    lines = [
        "# The methods",
        "",
        "Made by `make docs` from what each method declares about itself; tests hold the declarations against what it does.",
        "",
        "| method | map on | by class | complete | cost per image | for | not for | when randomized | paper |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for m in sw.methods():
        by_class = "yes" if m.uses_target else "no" if m.class_agnostic else "control"
        cells = [m.resolution, by_class, "yes" if m.complete else "no", m.cost, m.good_for, m.not_for, m.randomization]
        lines.append("| " + " | ".join([f"[`{m.name}`](#{anchor(m)})", *cells, m.paper]) + " |")
    for m in sw.methods():
        lines += ["", f"## {m.title} (`{m.name}`)", "", "```", *docstring(m).splitlines(), "```", ""]
        if m.warning:
            lines += [f"Every map carries a warning: it {m.warning}.", ""]
        lines += ["Parameters: " + (", ".join(f"`{k}={v!r}`" for k, v in m.parameters.items()) or "none") + "."]
    return "\n".join(lines) + "\n"


def checks_page():
    import seewhy as sw

    lines = [
        "# The checks",
        "",
        "Made by `make docs` from what each check declares about itself. How to read them: [trust-card.md](trust-card.md).",
        "",
        "| check | asks | needs | cost | source |",
        "|---|---|---|---|---|",
    ]
    for c in sw.checks():
        needs = ", ".join(f"`{name}`" for name in c.needs)
        lines.append("| " + " | ".join([f"[`{c.name}`](#{anchor(c)})", c.question, needs, c.cost, c.paper]) + " |")
    for c in sw.checks():
        lines += ["", f"## {c.title} (`{c.name}`)", "", "```", *docstring(c).splitlines(), "```", ""]
        lines += ["Parameters: " + (", ".join(f"`{k}={v!r}`" for k, v in c.parameters.items()) or "none") + "."]
    return "\n".join(lines) + "\n"


def anchor(info):
    heading = f"{info.title} ({info.name})".lower()
    return re.sub(r"[^\w -]", "", heading).replace(" ", "-")


def docstring(info):
    import inspect

    return inspect.getdoc(info.function)


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder_with_a_cat(tmp_path, monkeypatch):
    photo = Path(importlib.util.find_spec("skimage").origin).parent / "data" / "chelsea.png"
    shutil.copy(photo, tmp_path / "cat.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put_networks_into(folder):
    """What docs/own-model.md loads: a transformers folder, own code, a Lightning checkpoint, names."""
    import torch
    from safetensors.torch import save_file
    from transformers import ViTConfig, ViTForImageClassification

    from nets import tiny_cnn

    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    config = ViTConfig(**small, image_size=32, patch_size=8, architectures=["ViTForImageClassification"])
    (folder / "my-vit").mkdir()
    (folder / "my-vit" / "config.json").write_text(config.to_json_string())
    save_file(ViTForImageClassification(config).state_dict(), folder / "my-vit" / "model.safetensors", {"format": "pt"})
    pixels = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"height": 32, "width": 32}}
    (folder / "my-vit" / "preprocessor_config.json").write_text(json.dumps(pixels))
    (folder / "my_nets.py").write_text("from nets import tiny_cnn as build\n")
    state = {f"model.{name}": tensor for name, tensor in tiny_cnn(seed=3).state_dict().items()}
    torch.save({"state_dict": state, "pytorch-lightning_version": "2.5"}, folder / "last.ckpt")
    (folder / "names.txt").write_text("\n".join("abcde"))


def put_scans_into(folder):
    """What docs/radiographs.md explains: a scan with two windows, a series of slices, a few training images."""
    import numpy as np

    from scans import save, slices

    shades = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    windows = {"WindowCenter": [2048, 1000], "WindowWidth": [4096, 500]}
    save(folder / "scan.dcm", shades, modality="DX", **windows)
    save(folder / "cine.dcm", np.stack([shades, shades.T, shades[::-1]]), modality="XA", **windows)
    slices(folder / "ct", size=(32, 32))
    (folder / "train").mkdir()
    for i in range(3):
        save(folder / "train" / f"{i}.dcm", np.roll(shades, 9 * i, 1), modality="DX", **windows)


def run_snippets(page):
    scope = {}
    for block in blocks(page, "python"):
        exec(compile(block, page.name, "exec"), scope)


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=lambda p: p.name)
def test_every_python_snippet_runs(page, folder_with_a_cat, capsys):
    if page.name == "own-model.md":
        put_networks_into(folder_with_a_cat)
    if page.name == "radiographs.md":
        put_scans_into(folder_with_a_cat)
    run_snippets(page)


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "console")], ids=lambda p: p.name)
def test_every_command_runs(page, folder_with_a_cat):
    if page.name == "audit.md":  # its commands are about the network, the photos and the run of its snippets
        (folder_with_a_cat / "mynet.py").write_text(blocks(page, "python")[0])
    if page.name in ("audit.md", "ledger.md"):
        run_snippets(page)
    if page.name == "radiographs.md":
        put_scans_into(folder_with_a_cat)
    commands = [line[2:] for block in blocks(page, "console") for line in block.splitlines() if line.startswith("$ ")]
    for command in commands:
        done = CliRunner().invoke(app, shlex.split(command)[1:])
        assert done.exit_code == 0, done.output
        assert done.stdout.strip()


def test_snippets_for_other_systems_are_run_by_their_benchmark():
    import other_systems

    page = ROOT / "docs" / "other-systems.md"
    marked = re.findall(r"^```python (\w+)$", page.read_text("utf-8"), re.MULTILINE)
    assert marked == list(other_systems.SYSTEMS) == list(other_systems.READ_BACK)
    found = other_systems.snippets()
    assert [system for system, _ in found if system] == marked
    assert [code for system, code in found if not system] == blocks(page, "python")
    for system, code in found:
        compile(code, system, "exec")
    others = [other.name for other in PAGES if other != page and "```python " in other.read_text("utf-8")]
    assert others == []  # whose marked snippets nothing would run


def test_the_method_table_is_fresh():
    assert METHODS.read_text("utf-8") == methods_page(), "run: make docs"


def test_the_table_of_checks_is_fresh():
    assert CHECKS.read_text("utf-8") == checks_page(), "run: make docs"


def test_every_public_name_is_documented_somewhere():
    import seewhy as sw

    text = "".join(page.read_text("utf-8") for page in PAGES)
    errors = {"SeewhyError", "UsageError", "ImageError", "RefusalError", "MissingExtraError"}
    types = {
        "Annotations",
        "Audit",
        "Comparison",
        "DataSet",
        "Explanation",
        "LocalizationReport",
        "Photo",
        "Status",
        "Target",
        "TrustCard",
        "VisionModel",
        "Volume",
    }
    assert [name for name in sw.__all__ if name not in errors | types and f"sw.{name}" not in text] == []


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for link in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text("utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_make_help_lists_the_readmes_commands():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in re.findall(r"^make (\w+)|`make (\w+)`", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE):
        assert re.search(rf"^{''.join(target)}:.*## ", makefile, re.MULTILINE), target


if __name__ == "__main__":
    METHODS.write_text(methods_page(), "utf-8")
    CHECKS.write_text(checks_page(), "utf-8")
    print(f"wrote {os.path.relpath(METHODS)} and {os.path.relpath(CHECKS)}")  # noqa: T201  # said by `make docs`
