"""Controlled experiments: what a transport, selector or scheduler does to LLM work, with evidence.

A plan (`plan`) says beforehand what is compared; `runner` carries it out in interleaved blocks, each cell with a system
started afresh, and writes a record (`record`) that holds everything; `analysis` computes every figure from the raw
data alone, with the methods of `statistics`; `report` draws them.
"""
