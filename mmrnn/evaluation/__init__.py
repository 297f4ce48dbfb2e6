"""What a model can do: replies compared with what is true, and reports about it."""
