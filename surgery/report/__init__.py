"""report.html: what a version is, how it was made and where it errs, as one page without a network."""

REPORT_FILE = "report.html"
"""Where the report lies inside a version."""
