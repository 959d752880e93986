"""The command for shells: completion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from cyclopts import App

from novabackup.cli.output import Answer
from novabackup.cli.work import BY_DEFAULT, Options

__all__ = ["completion_of"]


def completion_of(app: App) -> Callable[..., Answer]:
    """Make the command that completes an app's command lines.

    Args:
        app: The app, with all its commands.

    Returns:
        The command.
    """

    def completion(
        shell: Literal["bash", "zsh", "fish"], /, *, install: bool = False, options: Options = BY_DEFAULT
    ) -> Answer:
        """Print the script with which a shell completes commands and options, or install it.

        Args:
            shell: Which shell.
            install: Write it where the shell looks for it, and have the shell read it when it starts.
        """
        if install:
            where = str(app.install_completion(shell=shell))
            return Answer(
                fields={"shell": shell, "installed": where}, done=[f"{where} is written; start a new {shell}"]
            )
        script = app.generate_completion(shell=shell)
        return Answer(fields={"shell": shell, "script": script}, shown=script.splitlines())

    return completion
