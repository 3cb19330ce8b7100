"""Choose what to label next, draw boxes beforehand, and read the corrected labels back."""
