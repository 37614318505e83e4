"""Who did what: a service that writes an audit log, and the commands that verify and show it.

The service is `anywire_service_audit.service.Audit`. This file imports nothing, so that the command line stays quick.
"""
