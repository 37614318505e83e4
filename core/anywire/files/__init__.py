"""Files that hold secrets or state: who may read them, when they change, and where they are.

| module | |
|---|---|
| `private_files` | files of this user alone, read with that check and replaced whole |
| `watched_files` | tells when a file changes |
| `state_folders` | where state is kept that survives a restart |
"""
