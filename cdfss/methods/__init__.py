"""What turns labelled supports into masks of queries."""
