"""What can go wrong with an agent, its server, the orchestrator or the network between them.

The faults stand in the `catalogue`, and `stand_in` is a server in the place of a model that fails as it is told.
Which of them an experiment can inflict, `anywire_experiment.plan.fault_kinds` says. They are inflicted by
`anywire_experiment.run`.
"""
