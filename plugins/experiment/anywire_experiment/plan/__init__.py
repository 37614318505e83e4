"""What an experiment says beforehand: a `plan`, read from its file, and the arms that come of it.

`workload` is what is asked, with the `traffic` of sessions, the traces of `trace_formats`, and the rates of a search
(`saturation`); `levels` are those of its factors, such as `systems` and `faults` (their kinds: `fault_kinds`);
`companions` and systems are `programs`. `arms` makes of every combination of levels a whole configuration
(`config_tree`), and `orders` says when each of them runs (`balance`). `objective` is what an answer must hold; `errors`
tells what is wrong in a plan, and `files` finds what it names.

Nothing is imported here: the load generator and the link are processes that need a part of it alone.
"""
