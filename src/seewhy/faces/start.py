"""The start page of `seewhy demo`: the story in one screen, with the way to every page that was made."""

import json
from pathlib import Path
from typing import Any

from seewhy import runfolder
from seewhy.faces.report import PAGE, environment, style


def start_page(folder: Path) -> Path:
    """Render index.html of a demo's folder from its story.json alone; returns the page's path."""
    story: dict[str, Any] = json.loads((folder / "story.json").read_text("utf-8"))
    page = environment().get_template("start.html.j2").render(story=story, style=style())
    runfolder.write_file(folder / PAGE, page.encode())
    return folder / PAGE
