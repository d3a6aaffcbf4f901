"""What the dashboards show: a module for each, and what they share."""
