"""Steps of a stage: what is read, computed, guarded and measured."""
