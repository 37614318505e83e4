"""What is done beside the order of the queue: preemption, probes of quarantined agents, orders of operators."""
