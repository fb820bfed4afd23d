"""The room that published models take: a census of them, leases on them, and removal that readers survive."""
