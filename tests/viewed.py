"""What a page of `leafe report` holds, read as a browser does."""

import base64
import json
import re
import zlib
from pathlib import Path
from typing import Any


def contents(page: Path) -> dict[str, Any]:
    """The data of a page by their names: ``overview``, and trees by their places in its list."""
    packed = re.findall(r'<script type="text/plain" id="([\w-]+)">([^<]*)</script>', page.read_text(encoding="utf-8"))
    return {name: json.loads(zlib.decompress(base64.b64decode(text))) for name, text in packed}


def viewed(page: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The overview, and the trees by their tasks."""
    held = contents(page)
    overview = held.pop("overview")
    return overview, {tree["task"]["id"]: tree for tree in held.values()}
