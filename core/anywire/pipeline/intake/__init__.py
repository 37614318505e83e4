"""What comes in: tasks of clients, and messages of links."""
