"""What is told: events of tasks, agents and links, and decisions that are kept."""
