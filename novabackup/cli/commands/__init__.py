"""The commands: each a function from what was typed to an `Answer`. Signatures are options, docstrings are help."""
