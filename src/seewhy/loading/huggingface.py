"""hf:FOLDER_OR_ID: a transformers model that lies on disk. Never downloads, never runs a repository's own code."""

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from seewhy.errors import UsageError, first_line
from seewhy.loading.checkpoint import Fit, check_finite, in_words, misfit, prefixes, read_checkpoint
from seewhy.loading.extras import import_extra
from seewhy.loading.torchvision_models import kept_share

VISION_PART = {  # of a network of pictures and texts, the class of its pictures' half
    "CLIPModel": "CLIPVisionModelWithProjection",
    "SiglipModel": "SiglipVisionModel",
    "Siglip2Model": "Siglip2VisionModel",
}
TASKS = {  # by how an architecture's name ends; the longest first
    "ForImageClassificationWithTeacher": "multiclass",
    "ForImageClassification": "multiclass",
    "ForSemanticSegmentation": "segmentation",
    "ForObjectDetection": "detection",
    "ModelWithProjection": "embedding",
    "Backbone": "embedding",
    "Model": "embedding",
}
PROBLEMS = {"multi_label_classification": "multilabel", "regression": "regression"}
INTERPOLATIONS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers for them
Processor = Mapping[str, Any]


def load_hf(name: str, weights: str | Path | None, given: Mapping[str, Any]) -> tuple[nn.Module, dict[str, Any], str]:
    """The network in a folder with config.json, with the normalization and framing of its preprocessor_config.json.

    given: settings that the user has named; what he gives, the folder need not tell.
    """
    transformers = import_extra("transformers", "hf", f"the model 'hf:{name}'")
    folder = _folder(name)
    config = _json(folder / "config.json")
    architecture, task = _architecture(transformers, config, folder, "task" in given)
    processor = _processor(folder)
    if processor is None and str(weights) != "random" and "mean" not in given:
        raise UsageError(
            f"{folder} has no preprocessor_config.json, so how this network wants its pixels is unknown: copy that file "
            "there, or give mean=, std= and size= (command line: --mean --std --size)."
        )
    with _quiet(transformers):
        if weights is None:
            module, origin = _pretrained(architecture, folder)
        elif str(weights) == "random":
            module, origin = architecture(_config(architecture, folder, None)), "random"
        else:
            module, origin = _filled(architecture, folder, Path(weights))
    settings = {"task": task, **(_pixels(processor, folder, task) if processor else _size(module.config))}
    if (labels := _labels(config, module.config.num_labels)) is not None:
        settings["labels"] = labels
    return module.float(), settings, origin


def _folder(name: str) -> Path:
    """The folder of that name, or of that id's files in the hub's cache."""
    folder = Path(name)
    if not folder.is_dir():
        hub = import_extra("huggingface_hub", "hf", f"the model 'hf:{name}'")
        try:
            folder = Path(hub.snapshot_download(name, local_files_only=True))
        except (OSError, ValueError) as error:  # not in the cache, or no id at all
            raise UsageError(
                f"hf:{name} is neither a folder nor in the cache of the Hugging Face hub, and nothing is downloaded: on a "
                f"machine with network run  hf download {name} --local-dir FOLDER  and load 'hf:FOLDER'."
            ) from error
    if not (folder / "config.json").is_file():
        raise UsageError(f"{folder} has no config.json, so it is no folder of a transformers model.")
    return folder


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as JSON ({error}).") from error
    if not isinstance(found, dict):
        raise UsageError(f"{path} must hold a JSON object; it holds {type(found).__name__}.")
    return found


def _architecture(transformers: ModuleType, config: Mapping[str, Any], folder: Path, any_task: bool) -> tuple[Any, str]:
    """The class that the configuration names, and its task; UsageError for code from the repository and for other inputs."""
    if "pretrained_cfg" in config:
        raise UsageError(
            f"{folder} holds a model of timm, not of transformers: sw.load('timm:{config.get('architecture')}', "
            f"weights='{folder / 'model.safetensors'}')."
        )
    named = (config.get("architectures") or [None])[0]
    kind = getattr(transformers, VISION_PART.get(named, str(named)), None)
    if kind is None:
        own = " It needs the repository's own code (auto_map), which is never run." if "auto_map" in config else ""
        raise UsageError(
            f"{folder / 'config.json'} names the architecture {named!r}, which transformers {transformers.__version__} does "
            f"not have.{own} Build the network in a function of yours: module.path:factory."
        )
    if getattr(kind, "main_input_name", None) != "pixel_values":
        raise UsageError(f"hf:{folder} is a {named}, which does not take pictures alone (pixel_values).")
    task = next((task for ending, task in TASKS.items() if kind.__name__.endswith(ending)), None)
    if task is None and not any_task:
        raise UsageError(
            f"what a {named} answers is unknown here; known are image classification, semantic segmentation, object "
            "detection and embeddings. Say task= (command line: --task) and a target function of its output."
        )
    if task == "multiclass":
        one = "regression" if len(config.get("id2label", "two")) == 1 else "multiclass"
        task = PROBLEMS.get(config.get("problem_type") or "", one)
    return kind, task or "multiclass"


@contextmanager
def _quiet(transformers: ModuleType) -> Iterator[None]:
    """No progress bars, no log and no warnings of transformers: what matters is checked and raised."""
    log = transformers.utils.logging
    level, bar = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.set_verbosity(level)
        if bar:
            log.enable_progress_bar()


def _pretrained(architecture: Any, folder: Path) -> tuple[Any, str]:
    """The folder's own weights (safetensors, or a .bin that holds tensors alone), every entry of the network filled."""
    try:
        module, found = architecture.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, output_loading_info=True
        )
    except Exception as error:  # no file, a damaged or hostile one, other shapes: the cause is kept and named
        raise UsageError(
            f"the weights in {folder} cannot be loaded safely ({type(error).__name__}: {first_line(error)}). For an "
            "untrained network: weights='random'."
        ) from error
    missing, unexpected = sorted(found["missing_keys"]), sorted(found["unexpected_keys"])
    if missing:
        raise UsageError(
            f"the weights in {folder} do not fit {architecture.__name__}: {len(missing)} entries missing {missing[:3]}, "
            f"{len(unexpected)} unexpected {unexpected[:3]}."
        )
    left = f", left out: {len(unexpected)} entries {unexpected[:3]}" if unexpected else ""
    return module, f"{folder}{left}"


def _filled(architecture: Any, folder: Path, weights: Path) -> tuple[Any, str]:
    """A user's checkpoint in the folder's architecture; transformers knows the names that its earlier versions had."""
    checkpoint, fits = read_checkpoint(weights), []
    for part, entries in checkpoint.parts.items():
        prefix, classes = "", None
        for _ in range(3):  # what does not fit tells the prefix, and then the number of classes
            named = {name.removeprefix(prefix): tensor for name, tensor in entries.items() if name.startswith(prefix)}
            config = _config(architecture, folder, classes)
            module, found = architecture.from_pretrained(
                None, config=config, state_dict=named, ignore_mismatched_sizes=True, output_loading_info=True
            )
            missing, unexpected = sorted(found["missing_keys"]), sorted(found["unexpected_keys"])
            misshapen = sorted(found["mismatched_keys"])
            shapes = [f"{name} is {tuple(had)}, expected {tuple(own)}" for name, had, own in misshapen]
            fit = Fit(part, prefix, missing, unexpected, shapes)
            if fit.whole:
                check_finite(named, weights)
                return module, in_words(checkpoint, fit, [fit])
            fits.append(fit)
            told = {config.num_labels + had[0] - own[0] for _, had, own in misshapen}
            if missing and len(found_prefixes := prefixes(unexpected, missing)) > 1:
                prefix += found_prefixes[1]
            elif len(told) == 1 and not missing:
                classes = told.pop()
            else:
                break
    raise UsageError(misfit(checkpoint, min(fits, key=lambda fit: len(fit.missing) + len(fit.misshapen))))


def _config(architecture: Any, folder: Path, classes: int | None) -> Any:
    chosen = {} if classes is None else {"num_labels": classes}
    return architecture.config_class.from_pretrained(folder, local_files_only=True, **chosen)


def _processor(folder: Path) -> Processor | None:
    """The image processor's settings: a file of their own, or a part of the processor's."""
    if (folder / "preprocessor_config.json").is_file():
        return _json(folder / "preprocessor_config.json")
    if (folder / "processor_config.json").is_file():
        part: Processor | None = _json(folder / "processor_config.json").get("image_processor")
        return part
    return None


def _pixels(processor: Processor, folder: Path, task: str) -> dict[str, Any]:
    """Normalization and framing as the image processor's settings say them."""
    if processor.get("do_flip_channel_order"):
        raise UsageError(
            f"{folder / 'preprocessor_config.json'} wants the colors in the order blue, green, red: load the network in a "
            "function of yours that flips them first (x.flip(1)): module.path:factory."
        )
    means, stds = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if processor.get("do_normalize", "image_mean" in processor):
        means, stds = tuple(processor["image_mean"]), tuple(processor["image_std"])
    factor = 255 * processor.get("rescale_factor", 1 / 255) if processor.get("do_rescale", True) else 255.0
    offset = 1.0 if processor.get("rescale_offset") else 0.0  # pixels x * factor - 1
    return {
        "mean": tuple((m + offset) / factor for m in means),
        "std": tuple(s / factor for s in stds),
        "interpolation": INTERPOLATIONS.get(processor.get("resample", 2), "bilinear"),
        **_framing(processor, task),
    }


def _framing(processor: Processor, task: str) -> dict[str, Any]:
    """size, crop and framing: {"height", "width"} is the whole photo in that shape, {"shortest_edge"} keeps proportions."""
    size, cut = processor.get("size"), processor.get("crop_size")
    cropped = processor.get("do_center_crop", False) and cut is not None
    if isinstance(size, int):  # files from before transformers 4.23
        size = {"shortest_edge": size} if cropped or "crop_pct" in processor else {"height": size, "width": size}
    shown = None
    if cut is not None and cropped:
        shown = (cut, cut) if isinstance(cut, int) else (cut["height"], cut["width"])
    if not size or not processor.get("do_resize", True):
        return {} if shown is None else {"size": shown}
    edge = size.get("shortest_edge")
    if edge is None:
        whole = (size["height"], size["width"])
        shown = shown or whole
        return {"size": shown, "crop": kept_share(shown[0], whole[0]), "framing": "stretch"}
    if processor.get("crop_pct") and not cropped:  # ConvNeXt's own rule
        if edge >= 384:
            return {"size": edge, "framing": "stretch"}
        return {"size": edge, "crop": processor["crop_pct"]}
    if shown is not None:
        return {"size": shown, "crop": min(1.0, kept_share(min(shown), edge))}
    return {"size": edge, "framing": "pad" if task == "detection" else "crop"}


def _size(config: Any) -> dict[str, Any]:
    """The input size that the network itself declares, if it does."""
    size = getattr(config, "image_size", None)
    return {"size": tuple(size) if isinstance(size, list | tuple) else size} if size else {}


def _labels(config: Mapping[str, Any], classes: int) -> list[str] | None:
    """The configuration's class names; None where they are only numbered or not as many as the classes."""
    names = config.get("id2label") or {}
    if sorted(names, key=str) != sorted(map(str, range(classes))) or set(names.values()) == {
        f"LABEL_{i}" for i in range(classes)
    }:
        return None
    return [str(names[str(i)]) for i in range(classes)]
