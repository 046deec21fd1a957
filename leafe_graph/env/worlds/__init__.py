"""What an agent's tools change, and how it is brought back: a folder, a database, an object, a sandbox."""

from .objects import PyObject
from .occupied import occupy, vacate
from .protocol import STATELESS, Stateless, World
from .sandbox import Sandbox
from .sqlite import SqliteFile
from .workspace import Workspace

__all__ = ["STATELESS", "PyObject", "Sandbox", "SqliteFile", "Stateless", "Workspace", "World", "occupy", "vacate"]
