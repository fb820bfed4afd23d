"""A small Hub on loopback: what `wantd demo` downloads from, and `python -m agent.embedded_hub` to try things out on.

The routes are those of `agent.http.hub`, which serve any `Repositories`.

    repo          repositories in memory or from a directory
    storage       the second host, where weight files come from
    rate_limits   how many requests a client may send
    server        EmbeddedHub: both hosts on loopback, put together
    demo, gguf    the repository of the demo, and a Hub beside synchronous code

To serve more than this Hub does, subclass
`EmbeddedHub` and extend its applications and middlewares: handlers return responses that are not sent yet, so that a
middleware can change headers, the range, and how the body is written.
"""
