"""The live files: what a store is made of, what is declared to belong to it, and what is checked."""
