"""Each fault by name, on every transport, with what the client must see: ``anywire experiment faults``.

The faults stand in `anywire_experiment.faults.catalogue`. A `cell` is one of them on one transport: streams over two
agents, the fault strikes the first agent or the orchestrator (`anywire_experiment.run.injection`), the `clients` write
down what they see (`observed`), and `verdict` holds it against what the catalogue says. The engines of the agents ask a
server that stands in for a model where it is the engine that fails. The orchestrator's `notes` tell when the pipeline
noticed. `table` runs all cells into a record (`record`), which `pages` show.
"""
