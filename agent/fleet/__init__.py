"""Many hosts: the configuration of nginx that makes their caches one, and whether it works (docs/fleet.md)."""
