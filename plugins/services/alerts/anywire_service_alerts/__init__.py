"""Says when memory, graphics memory, disk or processor of an agent's machine run out.

The service is `anywire_service_alerts.service.Alerts`; when an alert begins and ends is decided by
`anywire_service_alerts.levels.Levels`, which is pure.
"""
