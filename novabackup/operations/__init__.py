"""What can be done with snapshots and repositories: one module or package for each verb."""
