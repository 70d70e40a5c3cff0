"""Where events get their order, and are kept for those who were away for a moment."""
