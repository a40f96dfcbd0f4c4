"""Imports go strictly down: each room may import the rooms before it, never one beside or above it."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "seewhy"

# Lower rooms first; rooms on one line do not import each other. A folder is one room, with an order of its own below.
ORDER = [
    ["errors"],
    ["registry"],
    ["capture", "beside"],
    ["target"],
    ["answers", "forms", "reading", "throughput", "normalization"],
    ["places", "network"],
    ["layers"],
    ["attention"],
    ["model"],
    ["maps", "wrapping", "similarity", "intervals", "randomization", "identity"],
    ["loading", "data", "perturb", "imputation", "segmentation", "draw", "runfolder", "softening"],
    ["controls"],
    ["methods", "checks"],  # a check is given what it questions
    ["attacks"],  # as a check; they give their numbers in the same form
    ["explanation"],
    ["trust"],
    ["ledger"],
    ["audit"],
    ["demo"],  # its own imports are public names, resolved on first use
    ["faces", "testing"],
]
RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}
INSIDE = {
    "capture": [
        ["state", "outputs", "listening", "rectifiers", "memory", "keeping"],
        ["gradients", "folding"],
        ["tracing", "attention"],
        ["paths"],
    ],
    "loading": [
        ["extras"],
        ["labels", "checkpoint"],
        ["lite0", "timm_models", "factory"],
        ["torchvision_models", "files"],
        ["huggingface"],
        ["specification"],
    ],
    "target": [["outputs", "rows"], ["boxes"], ["question"], ["given"]],
    "data": [
        ["geometry", "kinds", "tables", "outlines"],
        ["tags"],
        ["windows"],
        ["dicom"],
        ["images"],
        ["stored", "volumes"],
        ["layouts"],
        ["dataset", "truth", "boxes"],
        ["labels", "placing"],
    ],
    "methods": [
        ["steps"],
        ["quadrature"],
        ["cam", "gradient", "path", "walks", "perturbation", "superpixels", "attention", "control", "adapter"],
        ["extremal", "rectified", "cam_several", "cam_forward"],
    ],
    "explanation": [
        ["inputs", "progress", "ending", "precision", "forecast"],
        ["result"],
        ["questions", "validity", "provenance"],
        ["run"],
    ],
    "checks": [
        ["result", "training", "objects", "cascade", "strongest", "behavior"],
        ["turning"],
        ["retraining", "overlap", "plausible"],
        [
            "agreement",
            "class_discrimination",
            "completeness",
            "cost",
            "data_randomization",
            "faithfulness",
            "grid_pointing",
            "localization",
            "manipulation",
            "model_randomization",
            "resolution",
            "roar",
            "shape_bias",
            "stability",
        ],
    ],
    "attacks": [["region", "copies", "changes"], ["result"], ["tuning", "pixels"], ["weights", "inputs", "exact"]],
    "trust": [["binding", "documentation", "setup"], ["forecast"], ["card"], ["comparison", "localization"]],
    "ledger": [
        ["schema"],
        ["database"],
        ["migrations", "sqlite", "postgres"],
        ["place"],
        ["store"],
        ["record", "again", "changes", "keys"],
        ["checkpoint", "replay"],
        ["verify", "erasure"],
        ["signing"],
    ],
    "audit": [
        ["candidate"],
        ["association", "patterns", "selection", "stream", "policy", "output"],
        ["marks", "sightings", "exchange", "confirm", "gate", "junit", "setup", "objects"],
        ["local", "places", "background", "wholes", "findings", "examined"],
        ["strips", "mistakes"],
        ["review"],
        ["records"],
        ["run"],
        ["forecast"],
    ],
    "demo": [["photos", "listings"], ["explained", "training"]],
    "faces": [
        ["words", "plot", "effects"],
        ["cards"],
        ["audit_page"],
        ["audit_pdf"],
        ["report"],
        ["start", "compliance_subject", "compliance_pdf"],
        ["compliance_evidence"],
        ["compliance"],
        ["compliance_page"],
        ["cli"],
    ],
}
FILES = sorted(SOURCE.rglob("*.py"))


def imported(path):
    """Every seewhy module that a file imports, also inside functions; `import seewhy as sw` counts as 'seewhy'."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "seewhy")
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "seewhy":
            for alias in node.names:
                inner = SOURCE.joinpath(*node.module.split(".")[1:], alias.name)
                is_module = inner.with_suffix(".py").exists() or inner.is_dir()
                yield f"{node.module}.{alias.name}" if is_module else node.module


def room_of(path):
    return path.relative_to(SOURCE).with_suffix("").parts


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_strictly_down(path):
    here = room_of(path)
    if here == ("__init__",):
        return  # the public names, resolved on first use
    for name in imported(path):
        there = tuple(name.split(".")[1:])
        if not there:
            assert here[0] in ("faces", "demo", "testing"), f"{path.name} imports the public package from below it"
        elif there[0] != here[0]:
            assert RANK[there[0]] < RANK[here[0]], f"{'.'.join(here)} must not import {name}"
        elif here[0] in INSIDE and len(there) > 1 and here[-1] != "__init__":
            ranks = {file: rank for rank, files in enumerate(INSIDE[here[0]]) for file in files}
            below = ranks[there[1]] < ranks[here[1]]
            assert below or there[1] == here[1] in ("cli", "faithfulness"), f"{'.'.join(here)} must not import {name}"


def test_attacks_are_given_the_map_function_that_they_attack():
    names = {name for path in FILES if room_of(path)[0] == "attacks" for name in imported(path)}
    assert not {name for name in names if name.split(".")[1] in ("methods", "explanation", "registry")}


def test_every_room_has_its_place_in_the_order():
    rooms = {room_of(path)[0] for path in FILES} - {"__init__"}
    assert rooms == set(RANK)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_files_and_functions_stay_small(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert code_lines(node, text) <= 40, f"{node.name} has {code_lines(node, text)} code lines"


def code_lines(function, text):
    """Lines of a function without its docstring, comments, blank lines and nested signature lines."""
    first = function.body[0]
    documented = (
        isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    )
    start = function.body[1].lineno if documented and len(function.body) > 1 else first.lineno
    lines = text.splitlines()[start - 1 : function.end_lineno]
    return sum(1 for line in lines if line.strip() and not line.strip().startswith("#"))


def test_there_is_no_drawer_for_everything():
    assert not [path for path in FILES if path.stem in ("utils", "helpers", "misc", "common")]


def test_the_demo_and_the_helpers_for_tests_use_public_names_only():
    files = [*(SOURCE / "demo").rglob("*.py"), SOURCE / "testing.py"]
    names = {name for path in files for name in imported(path)}
    assert {name for name in names if not name.startswith("seewhy.demo.")} == {"seewhy"}
