"""Graphics cards and memory of this machine, and on which of them a model is started."""
