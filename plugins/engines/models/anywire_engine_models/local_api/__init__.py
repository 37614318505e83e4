"""Routes for the models of one agent, on loopback, beside it."""
