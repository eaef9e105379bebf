"""Pages that need no network: report.html, what a version is and where it errs, and that of a data check."""

REPORT_FILE = "report.html"
"""Where the report lies inside a version."""
ADAPTATION_FILE = "adaptation.json"
"""What an adapted version keeps of both domains, for its report."""
