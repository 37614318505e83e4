"""The driver: the process that is connected to the Ray cluster, a child of the launcher's.

It alone imports Ray. When the cluster's head is lost Ray ends the driver's process, and nothing else.
"""
