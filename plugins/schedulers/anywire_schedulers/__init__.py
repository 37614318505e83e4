"""Schedulers: the order in which waiting tasks are sent."""
