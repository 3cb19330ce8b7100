"""What to label next, with boxes drawn beforehand, and the corrected labels back."""
