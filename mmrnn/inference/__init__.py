"""Generation of replies with a trained model."""
