"""Questions whose answers a program can check: `exercise` says what is right, `generated` makes some by seed, `files`
reads those of a user.
"""
