"""HTTP/1.1 as most requests have it, served without the costs of a server for everything.

| module | |
|---|---|
| `head` | a request's head, read by llhttp, and which heads are served here |
| `request` | the request as handlers see it: aiohttp's interface, made as far as it is looked at |
| `whole_body` | a body that came with its head |
| `connection` | one connection: requests one after another, their answers, their end |
| `server` | all connections; gives those that need more to aiohttp's server |
"""
