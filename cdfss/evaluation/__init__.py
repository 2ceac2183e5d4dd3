"""From episodes to rows; what is measured in features."""
