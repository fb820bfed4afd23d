"""What is published, and how it gets there: layout, records, locks, space, publication."""
