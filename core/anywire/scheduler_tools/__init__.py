"""What several schedulers need: queues in order of rank, and what a task is expected to cost."""
