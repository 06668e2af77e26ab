"""What a trace looks like: the self-contained HTML page and figures for documents."""

from whence.report.page import write_report

__all__ = ["write_report"]
