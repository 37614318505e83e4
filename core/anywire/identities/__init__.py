"""By which keys agents and orchestrators are known, and which of them are let in.

| module | |
|---|---|
| `identity_proof` | the key of an end, and the proof in its hello |
| `admitted` | the file of those that are let in |
| `end_check` | the one decision about who is |
"""
