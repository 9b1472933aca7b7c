"""The page about a run, and the page that compares several: from a run's folder to one HTML file."""
