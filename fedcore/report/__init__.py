"""A run → one self-contained HTML page."""

from fedcore.report.render import render
from fedcore.report.run import RunReport

__all__ = ["RunReport", "render"]
