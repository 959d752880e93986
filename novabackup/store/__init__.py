"""The live files: what belongs to a store, how it is checked and queried, and which of its files hold secrets."""
