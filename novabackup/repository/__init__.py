"""What callers hold in hand: a repository, its snapshots, the keys that open it."""
