"""From metric rows to what a reader sees: tables with intervals, figures, and comparison with a committed result."""
