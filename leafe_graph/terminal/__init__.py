"""Where text goes to a terminal: what others said is made harmless, what the terminal cannot show is spelt out.

Floor 2: it may know the floors below.
"""
