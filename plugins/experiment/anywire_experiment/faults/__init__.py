"""What can go wrong with an agent, its server, the orchestrator or the network between them.

The faults stand in the `catalogue`, `in_plans` says which of them an experiment can inflict, and `stand_in` is a server
in the place of a model that fails as it is told. They are inflicted by `anywire_experiment.run`.
"""
