"""`python -m cg_assets.cli`."""

from cg_assets.cli import command

command()
