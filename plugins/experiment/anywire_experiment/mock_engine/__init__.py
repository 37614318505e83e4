"""An engine for plans, as a program of its own: ``python -m anywire_experiment.mock_engine`` (`__main__`).

`connection` reads requests, `engine` gives them slots and answers them, `answers` has the bytes.
"""
