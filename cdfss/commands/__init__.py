"""The command line, `cdfss`: one module a command."""
