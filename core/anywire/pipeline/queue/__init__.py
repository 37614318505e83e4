"""Tasks that wait: who is taken in, whose turn it is, which agent gets it, and how long nobody may be there."""
