"""The report: everything an inspection shows in one HTML file, which needs no network and no other file."""

from gradloom.inspection.report.page import check_path, report_html, save_report

__all__ = ["check_path", "report_html", "save_report"]
