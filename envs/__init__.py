"""Environments behind one door (`leafe_graph.env.TextEnv`): a module or a room each, imported only when it is used.

They know leafe_graph's env, types, errors, settings, text, files, importing and prompts, and nothing that plays them.
`catalog` lists them; an environment knows its own files, the catalogue and what several share (`java`, `sandbox`).
"""
