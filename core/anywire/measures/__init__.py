"""What can be measured of an orchestrator, as numbers that no metrics library has made: `anywire.measures.measures`."""
