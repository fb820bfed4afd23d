"""What is going on: the tickets (wants), the jobs (models on their way), and the feed that tells of every change."""
