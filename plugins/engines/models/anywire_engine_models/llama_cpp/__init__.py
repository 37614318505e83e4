"""llama.cpp's server: the command that starts it, and what the running server says of its model."""
