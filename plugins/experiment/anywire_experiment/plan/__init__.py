"""What an experiment says beforehand: a `plan`, read from its file by `reading`, and the arms that come of it.

`workload` is what is asked, with the `traffic` of sessions, `traces` (in the forms of `trace_formats`) and the rates of
a search (`saturation`); `levels` are those of its factors, such as `systems` and `faults` (their kinds: `fault_kinds`)
and the link of a `network`; `companions` and systems are `programs`. `metric` is what is judged, `objective` what an
answer must hold. `arms` makes of every combination of levels a whole configuration (`config_tree`), and `orders` says
when each of them runs (`balance`). `errors` tells what is wrong in a plan, and `files` finds what it names.

Nothing is imported here: the load generator and the link are processes that need a part of it alone.
"""
