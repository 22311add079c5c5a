"""Self-contained HTML pages for viewing the results of a run offline."""
