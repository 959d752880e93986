"""The command for shells: completion."""

from __future__ import annotations

from typing import Literal

from novabackup.cli.app import app
from novabackup.cli.output import Answer
from novabackup.cli.work import BY_DEFAULT, Options

__all__ = ["completion"]


def completion(
    shell: Literal["bash", "zsh", "fish"], /, *, install: bool = False, options: Options = BY_DEFAULT
) -> Answer:
    """Print the script with which a shell completes commands and options, or install it.

    Args:
        shell: Which shell.
        install: Write it where the shell looks for it, and have the shell read it when it starts.
    """
    every = app()
    if install:
        where = str(every.install_completion(shell=shell))
        return Answer(fields={"shell": shell, "installed": where}, done=[f"{where} is written; start a new {shell}"])
    script = every.generate_completion(shell=shell)
    return Answer(fields={"shell": shell, "script": script}, shown=script.splitlines())
