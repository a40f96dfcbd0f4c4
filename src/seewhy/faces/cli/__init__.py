"""The command line: a file per command. `seewhy --help` loads neither torch nor numpy."""

import ctypes
import os
import sys
import tempfile
import traceback

import typer

from seewhy.errors import SeewhyError
from seewhy.faces.cli import (
    attack,
    attack_inputs,
    audit,
    check,
    compare,
    demo,
    explain,
    layers,
    ledger,
    mean_image,
    methods,
    report,
)
from seewhy.faces.cli.console import FAULT, INTERRUPTED, UNUSABLE, say

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
FREED_BYTES, MOST_OF_OLD_VERSIONS = 2**30, 2**25

app = typer.Typer(
    name="seewhy",
    help="What a vision model is really looking at, with the evidence of how far each answer can be trusted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
attack.app.command("inputs")(attack_inputs.inputs)
app.add_typer(attack.app, name="attack")
app.command("audit")(audit.audit)
app.command("check")(check.check)
app.command("compare")(compare.compare)
app.command("demo")(demo.demo)
app.command("explain")(explain.explain)
app.command("layers")(layers.layers)
app.add_typer(ledger.app, name="ledger")
app.command("mean-image")(mean_image.mean_image)
app.command("methods")(methods.methods)
app.command("report")(report.report)


def _version(wanted: bool) -> None:
    if wanted:
        import importlib.metadata

        typer.echo(f"seewhy {importlib.metadata.version('seewhy')}")
        raise typer.Exit


@app.callback()
def seewhy(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """What a vision model is really looking at, with the evidence of how far each answer can be trusted."""


def keep_freed_memory() -> None:
    """Have glibc keep up to 1 GiB of what a batch frees for the next one; nothing where the user has set its own ways.

    It gives large tensors back to the system at once, and each of their pages comes back with a fault and zeros: of a
    batch of 8 or 16 gradient rows on lite0 that was a third of the time. Other C libraries have no mallopt, or their own.
    """
    if sys.platform != "linux" or any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        if not mallopt(MMAP_THRESHOLD, FREED_BYTES):
            mallopt(MMAP_THRESHOLD, MOST_OF_OLD_VERSIONS)
        mallopt(TRIM_THRESHOLD, FREED_BYTES)


def main() -> None:
    """Run the command line; errors become one line and an exit code."""
    keep_freed_memory()
    try:
        app(standalone_mode=True)
    except SeewhyError as error:
        say(f"error: {error}")
        sys.exit(UNUSABLE)
    except KeyboardInterrupt:
        say("interrupted. What was written before is kept.")
        sys.exit(INTERRUPTED)
    except SystemExit as end:
        if isinstance(end.__context__ and end.__context__.__cause__, KeyboardInterrupt):  # typer's way, without a word
            say("interrupted. What was written before is kept.")
        raise
    except BrokenPipeError:
        sys.exit(0)
    except Exception as error:  # a fault of ours: one line for the user, the traceback for us
        with tempfile.NamedTemporaryFile("w", prefix="seewhy-fault-", suffix=".txt", delete=False) as file:
            traceback.print_exc(file=file)
        say(f"error: a fault of seewhy's own ({type(error).__name__}: {error}). The traceback is in {file.name}")
        sys.exit(FAULT)
