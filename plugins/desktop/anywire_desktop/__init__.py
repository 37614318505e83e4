"""A bridge between a desktop app and local models: JSON-RPC 2.0 on standard input and output, an object a line.

| module | |
|---|---|
| `command` | `anywire desktop-bridge` |
| `line_streams` | lines from standard input, lines to standard output |
| `rpc` | JSON-RPC: calls under way, answers, errors, cancelling |
| `call` | what a command is told of the call that it answers, and how a method becomes a command |
| `bridge` | all commands together, from the first line to the last |
| `commands/` | the commands, a module for each subject |
| `downloads` | models of an Ollama registry, resumed and checked |
| `chats` | conversations, and the tool loop of an answer |
| `app_files` | settings and other files of the app |
"""
