"""A page in the browser at ``/ui``: the fleet, its queue and its tasks, and its models to be asked.

The service is `anywire_service_ui.service.Page`. The page itself is the folder ``page``: HTML, CSS and ES modules as
they are served, without a build step. It asks the gateway's HTTP API and nothing else.
"""
