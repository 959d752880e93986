"""The command completion."""

from __future__ import annotations

from typing import Literal

from novabackup.cli.app import app
from novabackup.cli.context import BY_DEFAULT, Options
from novabackup.cli.output import Result


def completion(
    shell: Literal["bash", "zsh", "fish"], /, *, install: bool = False, options: Options = BY_DEFAULT
) -> Result:
    """Print or install the completion script of a shell.

    Args:
        shell: Which shell.
        install: Write it where the shell looks for it, and make the shell read it when it starts.
    """
    every = app()
    if install:
        where = str(every.install_completion(shell=shell))
        return Result(fields={"shell": shell, "installed": where}, done=[f"{where} is written; start a new {shell}"])
    script = every.generate_completion(shell=shell)
    return Result(fields={"shell": shell, "script": script}, shown=script.splitlines())
