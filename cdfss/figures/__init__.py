"""The figures, one function each (no torch).

Each takes tables of numbers (rows, measurements, the training history) and, where it shows variants,
`Configuration.table_settings`, and returns a matplotlib figure; those with pictures read them by an
index. `style.save` writes SVG and PNG. What a run lacks is written into its figure.
"""
