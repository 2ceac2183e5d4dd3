"""What a job needs: devices, precision, files, progress, how it stops, what made a file."""
