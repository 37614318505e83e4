"""What is kept of an experiment: a `folder` of `cells`, each with its `samples`, the `environment` of every session,
secrets hidden by `masking`, all of it sealed by the hashes of a `manifest`.
"""
