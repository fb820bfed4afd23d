"""Pure decisions: values in, values out. No clock, no disk, no network, no logging in here."""
