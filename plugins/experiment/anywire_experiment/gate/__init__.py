"""Conditions under which the comparison of records fails, for continuous integration: `condition` reads them, `judged`
tells whether one holds.
"""
