"""Could somebody else read the record of a map: which of its fields are filled."""

from collections.abc import Mapping, Sequence
from typing import Any

from seewhy.checks import CheckResult, Verdict

# What a reader of a map must find in its record (the production checklist), and where it stands there.
FIELDS = {
    "what was explained": ("target", "text"),
    "its score": ("score",),
    "predictions": ("predictions",),
    "method": ("method",),
    "parameters": ("parameters",),
    "layer": ("layer",),
    "grid": ("grid",),
    "status": ("status",),
    "SHA-256 of the image file": ("image", "sha256"),
    "SHA-256 of the pixels": ("image", "pixels_sha256"),
    "crop of the photo": ("image", "geometry"),
    "SHA-256 of the map": ("map", "sha256"),
    "SHA-256 of the network": ("provenance", "model_sha256"),
    "where the weights came from": ("provenance", "weights"),
    "seed": ("provenance", "seed"),
    "device": ("provenance", "device"),
    "precision": ("validity", "precision"),
    "versions": ("provenance", "torch"),
    "evidence": ("evidence",),
    "what the map approximates": ("validity", "approximations"),
}
MAY_BE_EMPTY = ("parameters", "what the map approximates")  # an empty list is an answer here


def documentation(records: Sequence[Mapping[str, Any]], needs_layer: bool) -> CheckResult:
    """Which fields of the saved records are filled, over all maps; no verdict: what is needed depends on the reader."""
    wanted = {name: path for name, path in FIELDS.items() if name != "layer" or needs_layer}
    empty = {name: sum(not _filled(record, name, path) for record in records) for name, path in wanted.items()}
    missing = {name: count for name, count in empty.items() if count}
    sentence = f"{len(wanted) - len(missing)} of {len(wanted)} fields are filled in every one of {len(records)} records"
    if missing:
        sentence += "; empty: " + ", ".join(f"{name} ({count} of {len(records)})" for name, count in missing.items())
    return CheckResult(
        "documentation",
        (),
        Verdict.NONE,
        sentence + ".",
        details={"fields": {name: len(records) - count for name, count in empty.items()}, "records": len(records)},
    )


def _filled(record: Mapping[str, Any], name: str, path: tuple[str, ...]) -> bool:
    value: Any = record
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value is not None and (name in MAY_BE_EMPTY or value not in ("", [], {}))
