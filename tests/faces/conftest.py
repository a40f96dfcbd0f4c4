"""The command line as a user calls it."""

import sys

import pytest
from zoo import cat

from seewhy.faces import cli


@pytest.fixture
def seewhy(tmp_path, monkeypatch, capsys):
    """Runs a command line in a folder of its own: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    cat().save(tmp_path / "cat.png")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["seewhy", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        captured = capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
        return end.value.code, captured.out, captured.err

    return run
