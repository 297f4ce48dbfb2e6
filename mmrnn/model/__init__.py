"""The model: wiring of parts, the forward pass, and changes of a built model."""
