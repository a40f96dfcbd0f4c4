"""The ledger's tables, and the one place that says what the content of each kind of record holds.

Two tables: `record`, of which a row is written once and never changed (triggers refuse it), and `schema_version`, to which
every migration appends its number. Arrays and pictures lie in the run folder, in maps/ and images/, each named by the SHA-256
of its bytes; records name them.
"""

import hashlib
import json
from typing import Any

import numpy as np
from sqlalchemy import Column, Index, Integer, MetaData, String, Table, Text, UniqueConstraint

from seewhy import runfolder
from seewhy.errors import UsageError

SCHEMA = 1
NAME = runfolder.LEDGER
FIRST = "0" * 64  # what stands for the hash of the record before the first

# Kind of record -> what its content holds. A name under images/ or maps/ is that of a kept file; a path is relative to the
# data root; a number that is not finite, and whatever there is none of, is null.
CONTENTS: dict[str, dict[str, str]] = {
    "run": {
        "model": "the name of the model",
        "model_sha256": "of its architecture and every tensor, whatever file they came from",
        "data": "what identifies the data set",
        "settings": "what was asked for, defaults included",
        "versions": "of seewhy, torch and the rest",
        "machine": "device, CPU, instruction set, threads",
    },
    "setup": {"*": "what the set-up check found, as its to_dict() says it"},
    "prediction": {
        "path": "of the image",
        "label": "the right answer, as the data set gives it",
        "predicted": "the answer of the model",
        "right": "whether both are one",
        "score": "of the predicted output",
        "probability": "of the predicted class; null where the output is none",
        "outputs": "every output, or null",
        "group": "images of one source, which intervals are clustered by",
        "metadata": "the data set's further columns, by name",
    },
    "skip": {"path": "of the image", "reason": "why it was left out, in a sentence"},
    "explanation": {
        "image": "its path, or 'image 3' of a tensor",
        "image_sha256": "of the file's bytes; empty where there was no file",
        "pixels_sha256": "of what the model was shown: decoded, upright, cut to its input, float32",
        "shape": "of what the model was shown: channels, axes",
        "geometry": "where that lies in the photo; null where the way back is unknown",
        "notes": "what was done to the photo on the way",
        "modality": "how it was recorded, where black is a measurement (CT, DX ...); null for photos",
        "read_as": "the window and the frame that were asked for; null: the file's first",
        "model": "the name of the model",
        "model_sha256": "of its architecture and every tensor, whatever file they came from",
        "model_version": "the user's own name of this version of the model",
        "weights": "where they came from",
        "network": "loaded (the arguments of sw.load, or null), and how it wants its pixels: mean, std, size, crop, "
        "interpolation, framing, padding, preprocess (the name of the user's own function, or null)",
        "task": "of the model",
        "method": "its name in the registry",
        "parameters": "all of them, defaults included; tensors by their hash",
        "target": "what is explained: kind, scale, index, label, text ...",
        "score": "the explained number on the clean image",
        "predictions": "the most probable classes with their probabilities, the first one is the predicted class",
        "layer": "where the map was taken; null for methods on the input",
        "grid": "cells of the map along each axis",
        "status": "ok, or why there is no map",
        "map": "sha256 (of its .npy bytes), file (under maps/), mean, min, max, mass_in_top_5_percent (of |map|)",
        "shown": "the input as a picture (under images/), and as an array where a picture does not hold it; or null",
        "evidence": "baseline and why, rule, rows spent, completeness gap, and whatever else the method knows of this map",
        "validity": "what can differ in this map, each with its reason",
        "checks": "keys of the check records of these maps; of a run that was stopped some are missing",
        "seed": "of everything drawn at random",
        "precision": "number type that the network computed in",
        "seconds": "of the call that made this map with others",
        "rows": "maps that this call made together: who shares a batch can change the last digits",
        "machine": "device, accelerator, cpu, instruction_set, machine (its family), threads, batch_size, memory_format",
        "versions": "of seewhy, python, torch and the packages that can change a map",
    },
    "candidate": {"*": "a pattern that the model may rely on: kind, place or appearance, and how it was found"},
    "effect": {
        "candidate": "key of the candidate record",
        "operation": "removed, pasted, or a control",
        "image": "its path",
        "output": "the output that was measured",
        "*": "the numbers before and after",
    },
    "answer": {
        "model_sha256": "of its architecture and every tensor, whatever file they came from",
        "pixels_sha256": "of the images that it was asked about, all in one tensor",
        "n": "how many images",
        "outputs": "what it said, a row an image: a name under maps/",
    },
    "feature": {
        "model_sha256": "of its architecture and every tensor, whatever file they came from",
        "pixels_sha256": "of the images, all in one tensor",
        "map_sha256": "of their maps, all in one tensor",
        "method": "that made the maps",
        "layer": "whose activation was averaged under each map",
        "n": "how many images",
        "values": "a row an image, a number a channel: a name under maps/",
    },
    "finding": {"*": "a finding as it stands in findings.json"},
    "verdict": {
        "verdict": "pass, blocked, inconclusive or incomplete",
        "reasons": "why, in sentences",
        "policy": "what it was judged by: path, sha256",
        "findings": "keys of the finding records that it was judged on",
        "detectable_effect": "per kind the smallest effect that would have been seen, with its n",
        "not_tested": "what the audit could not see, in sentences",
    },
    "strip": {
        "finding": "its id",
        "path": "of the image",
        "pictures": "before, removed, pasted: names under images/, or absent",
        "said": "before, removed, pasted: what the model said of each",
        "output": "the output that was measured",
        "unit": "logit, probability or score",
    },
    "mean_map": {
        "name": "the class, or the quarter of the score",
        "right": "whether the maps are of images that the model got right",
        "n": "how many maps are in the mean",
        "method": "that made them",
        "map": "a name under maps/",
    },
    "association": {
        "column": "of the data set's metadata",
        "value": "in that column",
        "n": "how many images have it",
        "*": "accuracy or score of these images, with its interval",
    },
    "cost": {"forward_rows": "without a gradient", "gradient_rows": "forward and backward", "seconds": "of wall time"},
    "check": {"*": "what one check of a method found, as checks.jsonl holds it"},
    "erasure": {
        "file": "under images/ or maps/: it was erased on request, and records that name it keep its hash",
        "reason": "why",
        "by": "who erased it",
    },
}

metadata = MetaData()

record_table = Table(
    "record",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False, comment="1, 2, 3 ... without a gap"),
    Column("time", String, nullable=False, comment="UTC, ISO 8601, when the record was written"),
    Column("kind", String, nullable=False, comment="one of CONTENTS"),
    Column(
        "key", String, nullable=False, comment="which record of its kind; a second one of the same key is not written"
    ),
    Column("content", Text, nullable=False, comment="canonical JSON, see CONTENTS"),
    Column("previous", String(64), nullable=False, comment="hash of the record before, 64 zeros for the first"),
    Column("hash", String(64), nullable=False, comment="SHA-256 of previous and the canonical JSON of the five first"),
    # Taken out of the content for filters; the hash covers them there.
    Column("image", String, comment="the content's `image` or `path`"),
    Column("model", String, comment="the content's `model_sha256`"),
    Column("method", String, comment="the content's `method`"),
    UniqueConstraint("kind", "key"),
    Index("record_of_kind", "kind", "number"),
    Index("record_of_image", "image", "number"),
    Index("record_of_model", "model", "number"),
    Index("record_of_method", "method", "number"),
    comment="what was measured: a row is written once and never changed; the columns say how to check it",
)

version_table = Table(
    "schema_version",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False, comment="the highest one holds"),
    Column("since", String, nullable=False, comment="UTC, ISO 8601, when the tables became so"),
    comment="which version of these tables this is",
)

HASHED = ("number", "time", "kind", "key", "content", "previous", "hash")  # what a record is; the rest are filters


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


def canonical(value: Any) -> str:
    """The one way to write plain JSON values: keys sorted, no spaces, ASCII."""
    return _CANONICAL.encode(value)


def chain_hash(previous: str, number: int, time: str, kind: str, key: str, content: dict[str, Any]) -> str:
    """What a record says of itself and of all before it: SHA-256 in hexadecimal."""
    return text_hash(previous, number, time, kind, key, canonical(content))


def text_hash(previous: str, number: int, time: str, kind: str, key: str, text: str) -> str:
    """chain_hash of a content that is canonical JSON already: without writing it once more."""
    rest = canonical({"key": key, "kind": kind, "number": number, "time": time})
    return hashlib.sha256(f'{previous}{{"content":{text},{rest[1:]}'.encode()).hexdigest()


def stored_content(kind: str, key: str, content: object) -> str:
    """A content as the ledger keeps it; numbers of numpy become plain ones, those that are not finite null.

    UsageError for what is no dict of plain JSON values.
    """

    def number(value: object) -> object:
        if isinstance(value, np.generic):
            return value.item()
        raise TypeError(f"it holds a {type(value).__name__}")

    try:
        if not isinstance(content, dict):
            raise TypeError(f"it is a {type(content).__name__}")  # noqa: TRY301  # one message for both
        given = json.dumps(content, default=number)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"the content of {kind} {key!r} must be a dict of plain JSON values; {error}. Tensors and arrays: "
            "ledger.keep(array) gives a name to write instead."
        ) from error
    return canonical(json.loads(given, parse_constant=lambda _: None))  # read again, so that every name is a text


def stored_text(text: str) -> str:
    """A text that any database takes: NUL and lone surrogates (bytes of a file name that are no text) become escapes."""
    return text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()


def lifted(content: dict[str, Any]) -> dict[str, str | None]:
    """The columns that people filter by, out of a content."""
    found = {"image": content.get("image", content.get("path"))}
    found |= {"model": content.get("model_sha256"), "method": content.get("method")}
    return {name: stored_text(value) if isinstance(value, str) else None for name, value in found.items()}
