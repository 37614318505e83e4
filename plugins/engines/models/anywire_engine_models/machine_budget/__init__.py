"""The memory of one machine, divided among the programs of one user that run models there."""
