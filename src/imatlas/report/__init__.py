"""The report: one self-contained, offline HTML file of Results."""

from __future__ import annotations

from imatlas.report.page import render

__all__ = ["render"]
