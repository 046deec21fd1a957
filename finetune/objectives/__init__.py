"""What is trained for: one file an objective."""
