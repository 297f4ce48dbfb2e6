"""Default data set: generated scenes of drawings and handwritten digits, with questions."""
