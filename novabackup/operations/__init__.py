"""What can be done with a repository: one verb, one module.

A verb that is planned has its plan as frozen data, `plan` to make it without changing anything, and `execute`. Others
have `execute` alone: backup, check, verify, reencrypt. What only answers a question is named after it: `usage.measure`,
`diff.compare`, `compatibility.compare`.
"""
