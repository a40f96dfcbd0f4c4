"""What explain() gives: maps with status, evidence and provenance; it draws itself, saves itself, reads itself back."""

import hashlib
import importlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from seewhy import draw, runfolder
from seewhy.data.geometry import Geometry, resize
from seewhy.data.images import Photo, as_rgb, read_photo
from seewhy.errors import ImageError, RefusalError, UsageError
from seewhy.explanation.inputs import Shown
from seewhy.registry import METHODS

EIGHT_BIT = 1e-6  # largest difference between a pixel and what its 8-bit picture gives back, for the picture to do
PER_ROW_VALIDITY = ("gradient_norm", "probability", "float32_rank_correlation")


class Status(StrEnum):
    """What became of a row. Everything but `ok` is never drawn as a map and never scored, but counted."""

    OK = "ok"
    ALL_NEGATIVE = "all_negative"  # a map whose paper keeps the positive part has none; the signed raw map is kept
    ZERO_GRADIENT = "zero_gradient"
    CONSTANT = "constant"
    NON_FINITE = "non_finite"
    NO_DETECTION = "no_detection"


MEANING = {
    Status.OK: "a map",
    Status.ALL_NEGATIVE: "no positive evidence: every cell speaks against the target",
    Status.ZERO_GRADIENT: "no map: the gradient is exactly zero, the score does not react to small changes",
    Status.CONSTANT: "no map: the same value everywhere",
    Status.NON_FINITE: "no map: the network gave values that are not finite",
    Status.NO_DETECTION: "no map: what was asked about was not detected here",
}


@dataclass(frozen=True, eq=False)
class Explanation:
    """Maps with status, evidence and provenance; one row per (image, target) pair."""

    method: str
    parameters: dict[str, Any]
    raw: Tensor  # (R, *grid) float32, signed, native resolution, never normalized; 0 where there is no map
    images: Tensor  # (N, C, *axes) what the model was shown
    image_index: list[int]
    targets: list[dict[str, Any]]
    target_text: list[str]
    scores: Tensor  # (R,) the explained number on the clean image
    predictions: list[list[dict[str, Any]]]  # per row, the most probable classes first
    status: list[Status]
    evidence: dict[str, Tensor]
    validity: dict[str, Any]
    layer: str | None
    sources: list[Shown]  # (N,)
    seconds: float
    provenance: dict[str, Any]
    fingerprint: Callable[[], str]  # of the model; computed when a record needs it
    written: dict[Path, None] = field(default_factory=dict)  # the files that were made of it

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: the model's fingerprint as it is now in the place of the model."""
        return {**self.__dict__, "fingerprint": partial(str, self.fingerprint())}

    def __len__(self) -> int:
        return len(self.status)

    @property
    def ok(self) -> list[bool]:
        """Whether there is a map, per row."""
        return [status is Status.OK for status in self.status]

    @property
    def grid(self) -> tuple[int, ...]:
        """Cells of the raw maps along each axis."""
        return tuple(self.raw.shape[1:])

    @property
    def maps(self) -> Tensor:
        """(R, *axes): the raw maps at the size of the model's input, n-linear, half-pixel convention."""
        return resize(self.raw, tuple(self.images.shape[2:]))

    def on_photo(self, i: int = 0) -> tuple[Tensor, Tensor]:
        """Row i's map over the original photo's own pixels (H, W), and the mask of those that the model saw.

        Unseen pixels (outside the crop) hold 0, which says nothing of them. RefusalError where the way back is unknown.
        """
        return self._geometry(i).place(resize(self.raw[i : i + 1], tuple(self.images.shape[2:]))[0])

    @property
    def picture(self) -> draw.Picture:
        """How this method's paper draws its maps; both signs where the method is not one of ours."""
        return METHODS[self.method].picture if self.method in METHODS else "signed"

    def heatmap(self, i: int = 0, limit: float | None = None) -> Image.Image:
        """Row i's map in colors, with a color bar in its true numbers; a sentence where there is no map.

        limit: the number at the end of the color bar, to draw several maps on one scale; None is the map's own.
        """
        if self.status[i] is not Status.OK:
            return Image.fromarray(draw.note(self._photo(i), MEANING[self.status[i]]))
        raw = self._cells(i)
        colors = draw.enlarge(draw.heatmap(raw, self.picture, limit), tuple(self.images.shape[2:]))
        return Image.fromarray(draw.with_color_bar(colors, raw, self.picture, limit))

    def overlay(self, i: int = 0, opacity: float = 0.55, limit: float | None = None) -> Image.Image:
        """Row i's map over what the model was shown, with a color bar; a sentence where there is no map.

        limit: as for `heatmap`.
        """
        if self.status[i] is not Status.OK:
            return Image.fromarray(draw.note(self._photo(i), MEANING[self.status[i]]))
        raw = self._cells(i)
        mixed = draw.overlay(self._photo(i), raw, self.picture, opacity, limit)
        return Image.fromarray(draw.with_color_bar(mixed, raw, self.picture, limit))

    def photo_overlay(self, i: int = 0, opacity: float = 0.55) -> Image.Image:
        """Row i's map over the whole original photo, read again from its file; what the model did not see is hatched.

        RefusalError where the way back to the photo is unknown, ImageError where its file is gone or has changed.
        """
        geometry, photo = self._geometry(i), np.asarray(as_rgb(self._original(i)))
        if self.status[i] is not Status.OK:
            return Image.fromarray(draw.note(photo, MEANING[self.status[i]]))
        raw = self._cells(i)
        mixed = draw.overlay_on_photo(photo, raw, self.picture, geometry.cells(self.grid), opacity)
        remark = "" if geometry.seen().all() else "hatched: not shown to the network"
        return Image.fromarray(draw.with_color_bar(mixed, raw, self.picture, remark=remark))

    def _geometry(self, i: int) -> Geometry:
        source = self.sources[self.image_index[i]]
        if source.geometry is None or self.raw.ndim != 3:
            raise RefusalError(
                f"{source.name}: the way from the input back to a photo is unknown, since it came as a tensor or through the "
                "user's own preprocess. Pass the file or a PIL image to a model with size=, crop= and framing= instead."
            )
        return source.geometry

    def _original(self, i: int) -> Photo:
        source = self.sources[self.image_index[i]]
        if not source.sha256:
            raise RefusalError(
                f"{source.name} came without a file, so its photo is not kept: use on_photo() and your own."
            )
        photo = read_photo(source.name, **source.read_as)
        if photo.sha256 != source.sha256:
            raise ImageError(
                f"{source.name} has changed since it was explained (SHA-256 {photo.sha256[:12]}..., then "
                f"{source.sha256[:12]}...): explain it again."
            )
        return photo

    def rows(self) -> list[runfolder.Row]:
        """Each row as (JSON record, raw map, picture of the input): what is saved, and what every page is made from."""
        flat = self.images.ndim == 4
        return [(self.record(i), self._cells(i), self._photo(i) if flat else None) for i in range(len(self))]

    def record(self, i: int) -> runfolder.Record:
        """Row i as plain JSON values: what was explained, by what, how, and how far it can be trusted."""
        raw, n = self._cells(i), self.image_index[i]
        per_row = {name: values[i] for name, values in self.validity.items() if name in PER_ROW_VALIDITY}
        record = {
            "schema": runfolder.SCHEMA,
            "image": {
                **self.sources[n].to_dict(),
                "index": n,
                "pixels_sha256": sha256(self.images[n]),
                "shape": list(self.images.shape[1:]),
            },
            "method": self.method,
            "title": METHODS[self.method].title if self.method in METHODS else self.method,
            "summary": METHODS[self.method].summary if self.method in METHODS else "A method from outside seewhy.",
            "drawn_as": self.picture,
            "parameters": self.parameters,
            "target": self.targets[i],
            "score": float(self.scores[i]),
            "predictions": self.predictions[i],
            "layer": self.layer,
            "grid": list(self.grid),
            "status": str(self.status[i]),
            "map": {"sha256": hashlib.sha256(runfolder.npy_bytes(raw)).hexdigest(), **_statistics(raw)},
            "evidence": {name: values[i].item() for name, values in self.evidence.items()},
            "validity": {**self.validity, **per_row},
            "seconds_of_the_call": self.seconds,
            "provenance": {**self.provenance, "model_sha256": self.fingerprint()},
        }
        return {"id": _row_id(record), **runfolder.plain(record)}

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: the method, and a record for every row."""
        return {"method": self.method, "layer": self.layer, "rows": [self.record(i) for i in range(len(self))]}

    def files(self) -> list[Path]:
        """What was written of it, in every folder that it was saved to; UsageError before it is saved."""
        if not self.written:
            raise UsageError("this explanation has no files yet: save it first, e.save(folder).")
        return sorted(self.written)

    def save(self, folder: str | Path, *, on_photo: bool = False, root: str | Path | None = None) -> Path:
        """Append to a run folder (made where it does not exist): raw maps, pictures, a row and a ledger record of each.

        on_photo: also a picture of each map over the whole original photo, at its own size. root: the data root, which the
        ledger's paths are relative to; None: the folder that holds all these images.
        """
        path = runfolder.open_folder(folder)
        self.append_to(path, on_photo=on_photo, root=root)
        return path

    def append_to(
        self, folder: Path, *, on_photo: bool = False, root: str | Path | None = None, checks: Sequence[str] = ()
    ) -> list[runfolder.Record]:
        """Append to a run folder that is open; returns the rows as they were written.

        checks: keys of the check records that these maps are, or will be, checked by.
        """
        written = []
        for i, (record, raw, photo) in enumerate(self.rows()):
            shown = Image.fromarray(photo) if photo is not None else None
            pixels = self._pixels_beside(photo, self.image_index[i])
            overlay = self.overlay(i) if photo is not None and raw.ndim == 2 else None
            whole = self.photo_overlay(i) if on_photo else None
            written.append(runfolder.append(folder, record, raw, shown, pixels, overlay, whole))
        # The ledger is a room above: resolved when called, like every public name.
        importlib.import_module("seewhy.ledger.record").record_explanation(folder, self, written, root, checks)
        self.written.update(dict.fromkeys(runfolder.files_of(folder, written)))
        return written

    def _pixels_beside(self, photo: draw.RGB | None, n: int) -> NDArray[np.float32] | None:
        """Image n as numbers, where the picture of it does not give them back."""
        x: NDArray[np.float32] = self.images[n].detach().cpu().numpy()
        if photo is None or len(x) not in (1, 3):
            return x
        return None if np.abs(pixels_of_picture(photo, len(x)) - x).max() < EIGHT_BIT else x

    def _cells(self, i: int) -> draw.FloatMap:
        cells: draw.FloatMap = self.raw[i].detach().cpu().numpy()
        return cells

    def _photo(self, i: int) -> draw.RGB:
        x = self.images[self.image_index[i]].detach().cpu().float()
        if x.ndim != 3:
            raise UsageError(f"an input with {x.ndim - 1} axes is not a picture: draw a slice of e.raw instead.")
        low, high = (0.0, 1.0) if self.provenance["bounds_known"] else (float(x.min()), float(x.max()))
        shade = ((x - low) / max(high - low, 1e-12)).clamp(0, 1)
        bands = shade[:3] if len(shade) >= 3 else shade[:1].expand(3, *shade.shape[1:])
        photo: draw.RGB = (bands.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        return photo

    def __repr__(self) -> str:
        lines = [f"{self.method}: {len(self)} row(s), grid {' x '.join(map(str, self.grid))}, {self.seconds:.2f} s"]
        for i in range(min(len(self), 20)):
            name, gap = self.sources[self.image_index[i]].name, self.evidence.get("completeness_gap_relative")
            tail = f", completeness gap {100 * float(gap[i]):.1f} %" if gap is not None else ""
            said = stated(self.targets[i], self.validity["probability"][i], self.predictions[i])
            lines.append(f"  {name}: explains {said}; score {float(self.scores[i]):.3f}, {self.status[i]}{tail}")
        return "\n".join(lines + (["  ..."] if len(self) > 20 else []))

    def _repr_html_(self) -> str:
        return _notebook(self.rows()) if _notebook is not None else f"<pre>{self!r}</pre>"


def stated(target: dict[str, Any], probability: float | None, predictions: Sequence[dict[str, Any]]) -> str:
    """What is explained, and how sure the network is of it: 'logit of 281 tabby, predicted with p = 0.83'."""
    if probability is None or target["kind"] != "index":
        return str(target["text"])
    predicted = bool(predictions) and predictions[0]["index"] == target["index"]
    return f"{target['text']}, {'predicted with ' if predicted else ''}p = {draw.number(probability)}"


_notebook: Callable[[Sequence[runfolder.Row]], str] | None = None


def show_in_notebooks_with(renderer: Callable[[Sequence[runfolder.Row]], str]) -> None:
    """Let an upper layer say how an Explanation looks in a notebook."""
    global _notebook
    _notebook = renderer


def read_explanation(folder: str | Path, method: str | None = None) -> Explanation:
    """An Explanation as it was saved; a folder with several methods needs `method`."""
    rows = runfolder.read(folder)
    methods = list(dict.fromkeys(record["method"] for record, _, _ in rows))
    if method is None and len(methods) == 1:
        method = methods[0]
    rows = [row for row in rows if row[0]["method"] == method]
    if not rows:
        raise UsageError(f"{folder} holds {', '.join(methods) or 'no rows'}: say which method to read.")
    settings = {json.dumps([r["grid"], r["image"]["shape"], r["layer"], r["parameters"]]) for r, _, _ in rows}
    if len(settings) > 1:
        raise UsageError(f"{folder} holds {len(settings)} different settings of {method}: read its rows.jsonl instead.")
    first = {
        (r["image"]["index"], r["image"]["name"], r["image"]["pixels_sha256"]): (r, p) for r, _, p in reversed(rows)
    }
    places = list(reversed(first))
    record = rows[0][0]
    per_row = [name for name, value in rows[0][0]["validity"].items() if name in PER_ROW_VALIDITY]
    return Explanation(
        method=record["method"],
        parameters=record["parameters"],
        raw=torch.from_numpy(np.stack([raw for _, raw, _ in rows])),
        images=torch.from_numpy(np.stack([_pixels(folder, *first[place]) for place in places])),
        image_index=[
            places.index((r["image"]["index"], r["image"]["name"], r["image"]["pixels_sha256"])) for r, _, _ in rows
        ],
        targets=[r["target"] for r, _, _ in rows],
        target_text=[r["target"]["text"] for r, _, _ in rows],
        scores=torch.tensor([math.nan if r["score"] is None else r["score"] for r, _, _ in rows]),
        predictions=[r["predictions"] for r, _, _ in rows],
        status=[Status(r["status"]) for r, _, _ in rows],
        evidence={name: _column(rows, name) for name in record["evidence"]},
        validity={**record["validity"], **{name: [r["validity"][name] for r, _, _ in rows] for name in per_row}},
        layer=record["layer"],
        sources=[Shown.from_dict(first[place][0]["image"]) for place in places],
        seconds=record["seconds_of_the_call"],
        provenance=record["provenance"],
        fingerprint=lambda: str(record["provenance"]["model_sha256"]),
    )


def _pixels(folder: str | Path, record: runfolder.Record, photo: draw.RGB | None) -> NDArray[np.float32]:
    name = record["image"]["array"]
    if name is not None or photo is None:
        return runfolder.read_array(folder, name)
    return pixels_of_picture(photo, record["image"]["shape"][0])


def pixels_of_picture(photo: draw.RGB, channels: int) -> NDArray[np.float32]:
    """What the model was shown (channels, H, W) in [0, 1], from the picture of it that was kept."""
    return np.moveaxis(photo, 2, 0)[:channels].astype(np.float32) / np.float32(255)


def _column(rows: Sequence[runfolder.Row], name: str) -> Tensor:
    """An evidence of every row; JSON's null is an undefined (infinite) number, or NaN where the network gave such."""
    missing = [math.nan if r["status"] in (Status.NON_FINITE, Status.NO_DETECTION) else math.inf for r, _, _ in rows]
    values = [record["evidence"][name] for record, _, _ in rows]
    return torch.tensor([m if value is None else value for m, value in zip(missing, values, strict=True)])


def _statistics(raw: draw.FloatMap) -> dict[str, float | None]:
    magnitude = np.sort(np.abs(raw).ravel())[::-1]
    top = magnitude[: max(1, round(0.05 * magnitude.size))].sum()
    return {
        "mean": float(raw.mean()),
        "min": float(raw.min()),
        "max": float(raw.max()),
        "mass_in_top_5_percent": float(top / magnitude.sum()) if magnitude.sum() > 0 else None,
    }


def sha256(values: Tensor) -> str:
    """Hash of a tensor's bytes."""
    return hashlib.sha256(values.detach().cpu().contiguous().numpy().tobytes()).hexdigest()


def _row_id(record: runfolder.Record) -> str:
    """The same question gets the same id, so a second run replaces its rows instead of doubling them."""
    parts = ("method", "parameters", "layer", "target")
    provenance = (record["provenance"]["model_sha256"], record["provenance"]["seed"])
    key = [record["image"]["name"], record["image"]["pixels_sha256"], *(record[part] for part in parts), *provenance]
    return hashlib.sha256(json.dumps(runfolder.plain(key), sort_keys=True).encode()).hexdigest()[:16]
