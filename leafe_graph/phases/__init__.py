"""One model a phase, and one phase run from it."""
