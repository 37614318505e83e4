"""Who is there: agents, their links, what they serve, which of them are free, and who only says so."""
