"""The commands of the bridge, a module for each subject. A command is a method; its parameters are its arguments."""
