"""Files of models: found, checked, measured, named by a digest."""
