"""The configuration of the command: reading it, its sections, and messages with the line of each mistake."""
