"""A plan carried out: `runner` goes from cell to cell; a `cell` starts its `system` afresh, one `managed` process after
the other (each a `process`, through `launch`), loads it, and does `faults` to it. The orchestrator's `recorder` hears
of every task.
"""
