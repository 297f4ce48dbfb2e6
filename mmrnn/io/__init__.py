"""Files: atomic writes, tensor files, shards, GGUF, the hub, optional packages."""
