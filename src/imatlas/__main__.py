"""`python -m imatlas`: the same as the `imatlas` command."""

from imatlas.cli import run

run()
