"""The HTTP client of the engine: connections that are kept, one request at a time on each, read by llhttp."""
