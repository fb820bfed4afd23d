"""One way to speak HTTP for all that do: address rules, redirects, host budgets, proxies, the session."""
