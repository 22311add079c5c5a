"""Pages of HTML that open offline: what a run left, to look at in a browser."""
