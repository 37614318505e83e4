"""Keeps wanted replicas of models loaded in a fleet.

The service is `anywire_service_placement.service.Placement`; what it does next is decided by
`anywire_service_placement.planner.plan`, which is pure.
"""
