"""The tool loop of a chat: the model is asked, the tools that it wants are called, and it is asked again."""
