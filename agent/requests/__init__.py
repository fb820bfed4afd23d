"""Who asks: the spool is watched, wants are read and looked up in the catalog, and become tickets and jobs."""
