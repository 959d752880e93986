"""The commands, one file for each main one; a function's signature is its options, its docstring is its help."""
