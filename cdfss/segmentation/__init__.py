"""A person's own pictures: segment new ones from a few that are labelled."""
