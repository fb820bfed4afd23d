"""Who works: jobs are begun, planned, downloaded under locks, published, parked and tried again."""
