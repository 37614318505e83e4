"""What a plan will take and what it can show, before anything is started: `duration` has the minutes, `chances` the
power, `obstacles` what keeps it from running, and `forecast` puts them together.
"""
