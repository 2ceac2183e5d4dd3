"""From rows to statistics, tables, figures and the page (no torch)."""
