"""What the visitor sees: a snapshot of a comparison in, the page's values out."""
