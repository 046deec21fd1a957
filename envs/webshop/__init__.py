"""WebShop: find and buy what fits a wish."""

from .env import GUIDE, HORIZON, INSTRUCTION, Mode, WebShopEnv, catalog, expert, read_action, tasks

__all__ = ["GUIDE", "HORIZON", "INSTRUCTION", "Mode", "WebShopEnv", "catalog", "expert", "read_action", "tasks"]
