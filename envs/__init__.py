"""Environments behind one door (`leafe_graph.env.TextEnv`): one module each, imported only when it is used."""
