"""What makes a block all or nothing: the journal, its owner, the session."""
