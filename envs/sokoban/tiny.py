"""The tiny language policy that comes with the package: it plays two-box rooms badly, reflects and follows advice."""

from pathlib import Path

TINY_POLICY = Path(__file__).with_name("tiny_policy")
"""Its folder, as ``local:FOLDER`` takes it; `examples/tiny_policy.py` made it."""
