"""Repair: find what is damaged, bring it back from other places, and set aside what cannot be used."""
