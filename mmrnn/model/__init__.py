"""The model, and how it is put together."""
