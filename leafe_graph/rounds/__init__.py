"""Round after round."""
