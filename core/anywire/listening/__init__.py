"""Sockets on which gateways listen: addresses, TLS, and what a connection tells of its client.

| module | |
|---|---|
| `listener` | listens on an address or a Unix socket, with or without TLS |
| `certificates` | files with certificates, read again when they change |
| `handshakes` | TLS connections that are not open yet, bounded |
| `connection_proof` | whose certificate or which user is at the other end |
| `connection_limit` | how many connections one address may have |
"""
