"""Keys of clients: what a key is, the file that they are kept in, and who a client is by what it shows."""
