"""The objects of a repository: opening it, its records, its packs, and content in and out of packs."""
