"""LEAFE (arXiv 2603.16843): grow trees with reflections and rewinds, distil their corrections into the policy."""

from .distilled import Distilled


class Leafe(Distilled):
    """Stage 1 is exploring, stage 2 exporting and training: L = L_cf + beta * L_reh.

    Left out: nothing by itself. The paper takes a random fifth of the successful rollouts and three counterfactual rows
    a task: ``export.rehearsal_share`` and ``export.counterfactual_per_task``; all clean rows are trained on unless
    those say so.
    """
