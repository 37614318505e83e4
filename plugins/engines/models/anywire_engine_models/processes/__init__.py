"""Servers as processes that end with this one: started, watched until they are ready, stopped, never left behind."""
