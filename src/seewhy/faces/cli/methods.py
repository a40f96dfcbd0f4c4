"""seewhy methods."""

import typer

from seewhy.faces.cli.console import result_json, table


def methods(as_json: bool = typer.Option(False, "--json", help="Print JSON.")) -> None:
    """List the methods with what they declare: resolution, target, completeness, cost, paper."""
    import seewhy as sw

    found = sw.methods()
    if as_json:
        result_json(found.to_dicts())
        return
    rows = [
        (
            m.name,
            m.summary,
            m.resolution,
            "yes" if m.uses_target else "no",
            "yes" if m.complete else "no",
            m.cost,
            m.paper,
        )
        for m in found
    ]
    table(("method", "what it shows", "resolution", "target", "complete", "cost per image", "paper"), rows)
