"""The same works by others. Each module runs in an environment of its own, with what the text file beside it names."""
