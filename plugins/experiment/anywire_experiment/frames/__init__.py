"""A record as tables, for whoever analyses it further: `load` gives them as Arrow tables, and those as frames of pandas
or polars.

    from anywire_experiment.frames import load

    record = load("records/dds-or-http")
    requests = record.pandas().requests
    print(requests.groupby(["workload", "arm"])["latency_ms"].median())

What each column means and in which unit it is: `anywire_experiment.frames.schema`, and docs/reference/record-tables.md.
"""

from anywire_experiment.frames.tables import NAMES, PandasFrames, PolarsFrames, Tables, load, tables_of

__all__ = ["NAMES", "PandasFrames", "PolarsFrames", "Tables", "load", "tables_of"]
