"""How a branch ended, for people."""

from ..types import EndReason

ENDS: dict[EndReason, tuple[str, str, str]] = {
    "success": ("good", "✓", "success"),
    "failure": ("bad", "✕", "failure"),
    "rewound": ("back", "↶", "rewound in the middle"),
    "max_turns": ("bad", "▪", "turn limit"),
    "truncated": ("bad", "▪", "truncated by the environment"),
    "budget": ("off", "▪", "budget spent"),
    "env_error": ("off", "!", "environment error"),
    "model_error": ("off", "!", "model error"),
    "replay_divergence": ("off", "!", "replay diverged"),
}
"""Style, mark and name of each end."""
