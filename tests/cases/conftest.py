from faces.conftest import seewhy  # noqa: F401  # the command line as a user calls it
