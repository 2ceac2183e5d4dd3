"""From raw formats to an index, pictures, episodes and metrics; downloads; the demo's pictures."""
