"""The figures, one function each (no torch).

Each takes rows or measurements and `Configuration.table_settings` and returns a matplotlib figure;
`style.save` writes it as SVG and PNG. What a run lacks is written into its figure.
"""
