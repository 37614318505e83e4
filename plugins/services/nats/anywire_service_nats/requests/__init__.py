"""Requests that come by message: remembered until they are answered, and answered once."""
