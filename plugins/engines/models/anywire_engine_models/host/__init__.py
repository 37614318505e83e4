"""The owner of every model's process: `actor.ModelHost`, one task with one mailbox, and `residency.Residency`, the pure
rules it follows."""
