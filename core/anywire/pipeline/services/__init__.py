"""Services and commands: what they are asked, and what they answer."""
