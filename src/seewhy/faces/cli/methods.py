"""seewhy methods."""

from typing import TYPE_CHECKING

import typer

from seewhy.faces.cli.console import result, result_json, say, table

if TYPE_CHECKING:
    from seewhy.registry import MethodInfo


def methods(
    name: str | None = typer.Argument(None, help="One method: everything that it says about itself."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Compare the methods: resolution, class, completeness, cost, what each is good for and what not, and its paper."""
    import seewhy as sw

    found = sw.methods()
    if name is not None:
        from seewhy.registry import find_method

        info = find_method(name)
        if as_json:
            result_json(info.to_dict())
        else:
            _show(info)
        return
    if as_json:
        result_json(found.to_dicts())
        return
    columns = (
        "method",
        "map on",
        "by class",
        "complete",
        "cost per image",
        "for",
        "not for",
        "when randomized",
        "paper",
    )
    table(columns, [_row(m) for m in found])
    say("seewhy methods NAME shows one in full. Which holds on your own network is measured: read its evidence.")


def _row(m: "MethodInfo") -> tuple[str, ...]:
    complete = "yes" if m.complete else "no"
    return (m.name, m.resolution, _by_class(m), complete, m.cost, m.good_for, m.not_for, m.randomization, m.paper)


def _by_class(info: "MethodInfo") -> str:
    return "yes" if info.uses_target else "no" if info.class_agnostic else "control"


def _show(info: "MethodInfo") -> None:
    import inspect

    needs = [word for word, wanted in (("a ReLU", info.needs_relu), ("attention", info.needs_attention)) if wanted]
    result(f"{info.title} ({info.name}), {info.family}\n\n{inspect.getdoc(info.function)}\n")
    rows = [
        ("map on the", info.resolution),
        ("by class", _by_class(info)),
        ("complete", "yes" if info.complete else "no"),
        ("explains the", info.scale),
        ("needs", ", ".join(["gradients"] * info.needs_gradients + needs) or "forward passes only"),
        ("cost per image", info.cost),
        ("for", info.good_for),
        ("not for", info.not_for),
        ("randomization tests", info.randomization),
        ("warning", info.warning),
        ("parameters", ", ".join(f"{key}={value!r}" for key, value in info.parameters.items()) or "none"),
        ("paper", info.paper),
    ]
    table(("", ""), [row for row in rows if row[1]])
