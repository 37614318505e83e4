"""Tasks whose client comes back for the answer: a service that runs them, and keeps them over a restart.

The service is `anywire_service_background.service.Background`. This file imports nothing: the command line stays quick.
"""
