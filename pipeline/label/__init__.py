"""What to label next, with boxes drawn beforehand."""
