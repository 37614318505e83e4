"""The load generator: a process of its own, that sends a cell's workloads and writes down every request.

`spec` is what it is told and how it is spoken to; `arrivals` says when, `questions` what (with `prompts` and `shapes`),
`sessions` what depends on what, `openai_http` and `client_plane` how it is sent. `generator` runs closed and open loops
with them, `conversations` those of sessions, `searching` the steps of a search, and `rows` keeps what came of each
request. It wakes at times of nanoseconds (`timer`, `timerfd`).
"""
