"""Reports of runs: a page of HTML with its pictures inside, and what the documentation shows."""
