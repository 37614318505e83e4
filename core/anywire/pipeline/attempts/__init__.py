"""What is under way: attempts from sending to their end, and what follows from how they end."""
