"""Controlled experiments: what a transport, selector or scheduler does to LLM work, with evidence.

A `plan` says beforehand what is compared, what is asked, and what arms come of its factors; `capture` makes one of a
running fleet. `run` carries it out, with the system and the generator of `load` in processes of their own and the links
of `network` between them. `record` keeps everything. `analysis` computes every figure from the raw data alone, with the
methods of `statistics`, and `report` draws them; `outcome` seals all that and can tell whether it still holds. `energy`
counts what the machine took.

Before a run `dry_run` tells what it will take. Afterwards `frames` has a record that is still what was sealed as
tables, `exports` has it as files, and `gate` fails a build on what it shows. `cli` has the commands.

What may import what: everything the plan; `run` also `load`, `network`, `energy` and `record`; `analysis` also `record`
and `statistics`; `report` also `analysis`. Those before and after a run import the rest, and nothing but the command
imports them (tests/experiment/test_structure.py).
"""
