"""`python -m hubbub.cli` is `hubbub`."""

from hubbub.cli import main

__all__ = ["main"]

main()
