"""Environments behind one door (`leafe_graph.env.TextEnv`): a module or a room each, imported only when it is used.

`catalog` lists them; an environment knows its own files, the catalogue and what several share (`java`, `sandbox`).

Floor 5: it may know the floors below, and nothing that plays them.
"""
