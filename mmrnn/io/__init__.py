"""File formats and storage: atomic writes, tensor files, shards, GGUF, the hub, packages, optional imports."""
