"""What runs for long: intake, jobs, housekeeping. Brings the layers below together through Protocols."""
