"""The default data set: scenes of drawings and handwriting, made on the spot."""
