"""The snippets of docs/other-systems.md, run against the real MLflow, Weights & Biases and TensorBoard, and read back.

Needs mlflow-skinny, sqlalchemy and alembic, wandb and tensorboard, which the suite does not: install them into an environment
of their own. Prints a line a system; ends with exit code 1 where one does not hold what the snippet gave it.
"""

import contextlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops

PAGE = Path(__file__).parents[1] / "docs" / "other-systems.md"
SYSTEMS = {"mlflow": "mlflow-skinny", "wandb": "wandb", "tensorboard": "tensorboard"}  # mark of a snippet -> package


def snippets() -> list[tuple[str, str]]:
    """(system, code) of every snippet of the page, in order; of those that the suite runs the system is ''."""
    return re.findall(r"^```python ?(\w*)\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def in_mlflow(scope: dict[str, Any]) -> str:
    """What MLflow's own client finds of the last run."""
    client = scope["mlflow"].MlflowClient()
    found = client.get_run(scope["mlflow"].last_active_run().info.run_id)
    assert found.data.metrics == {"score": scope["row"]["score"]}
    assert found.data.tags["model_sha256"] == scope["e"].fingerprint()
    copy = Path(client.download_artifacts(found.info.run_id, ""))
    names = {path.relative_to(copy / "run") for path in (copy / "run").rglob("*") if path.is_file()}
    assert {path.relative_to(scope["run"]) for path in scope["e"].files()} <= names
    from seewhy.ledger import replay

    return f"{len(names)} files; replayed from the copy: {replay(copy / 'run', 1).verdict}"


def in_wandb(scope: dict[str, Any]) -> str:
    """What the offline run left on disk, and what the artifact says it holds."""
    held = {entry.path for entry in scope["artifact"].manifest.entries.values()}
    assert held == {path.relative_to(scope["run"]).as_posix() for path in scope["e"].files()}
    scope["wandb"].teardown()  # ends the process that writes the log
    (log,) = Path("wandb").glob("offline-run-*/run-*.wandb")
    assert all(word in log.read_bytes() for word in (b"score", scope["row"]["id"].encode()))
    (picture,) = log.parent.rglob("overlay*.png")
    assert ImageChops.difference(Image.open(picture).convert("RGB"), scope["e"].overlay()).getbbox() is None
    return f"{len(held)} files in the artifact, 1 image, {log.stat().st_size} bytes to sync"


def in_tensorboard(scope: dict[str, Any]) -> str:
    """What TensorBoard's own reader finds in the logs."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator("logs").Reload()
    (scalar,), (image,) = found.Scalars("cat.png/score"), found.Images("cat.png/grad_cam")
    assert abs(scalar.value - scope["row"]["score"]) < 1e-4 * abs(scalar.value)
    assert (image.width, image.height) == scope["e"].overlay().size
    return f"1 scalar, 1 image of {image.width} x {image.height}, {len(found.Tags()['tensors'])} texts"


READ_BACK: dict[str, Callable[[dict[str, Any]], str]] = {
    "mlflow": in_mlflow,
    "wandb": in_wandb,
    "tensorboard": in_tensorboard,
}


def main() -> int:
    """Run the page in a folder of its own; the number of systems that failed."""
    spec = importlib.util.find_spec("skimage")
    assert spec is not None, "scikit-image has the photo"
    assert spec.origin is not None, "scikit-image has the photo"
    failed = 0
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        os.environ["WANDB_SILENT"] = "true"
        shutil.copy(Path(spec.origin).parent / "data" / "chelsea.png", "cat.png")
        scope: dict[str, Any] = {}
        for system, code in snippets():
            exec(compile(code, PAGE.name, "exec"), scope)
            if system:
                try:
                    said = READ_BACK[system](scope)
                except AssertionError as error:
                    failed, said = failed + 1, f"FAILED: {error}"
                print(f"{system} {importlib.metadata.version(SYSTEMS[system])}: {said}")
    return failed


if __name__ == "__main__":
    sys.exit(min(main(), 1))
