"""WebShop: find the product that fits a wish, and buy it.

It knows env, types and errors, and the catalogue.
"""

from .env import GUIDE, HORIZON, INSTRUCTION, Mode, WebShopEnv, catalog, expert, read_action, tasks

__all__ = ["GUIDE", "HORIZON", "INSTRUCTION", "Mode", "WebShopEnv", "catalog", "expert", "read_action", "tasks"]
