import pytest

from seewhy.audit.policy import read_policy


@pytest.fixture
def policy(tmp_path):
    """A policy of this text; without one the shipped one."""

    def read(text=None):
        if text is None:
            return read_policy()
        (tmp_path / "seewhy.toml").write_text(text)
        return read_policy(tmp_path / "seewhy.toml")

    return read
