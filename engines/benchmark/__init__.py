"""Speed and error rates: engines that take turns, and many clips with their reference texts."""
