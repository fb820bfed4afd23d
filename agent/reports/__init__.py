"""Who is told: progress files, the log, systemd, a load balancer, and `wantd status`."""
