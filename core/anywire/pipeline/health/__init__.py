"""How agents and links do: breakers, quarantine, and the records of both."""
