"""A small Hub on loopback: what `wantd demo` downloads from, and `python -m agent.embedded_hub` to try things out on.

    interfaces    what the routes need to know of repositories: Repositories, Repository, RepositoryFile
    routes        the Hub's routes over them: metadata, trees, refs, `resolve`
    documents     the JSON of the metadata; git: the ids in it
    response      responses: content whole, in ranges, gzipped; errors; redirects; content: the bytes

    repo          repositories in memory or from a directory
    storage       the second host, where weight files come from
    rate_limits   how many requests a client may send
    server        EmbeddedHub: both hosts on loopback, put together
    demo, gguf    the repository of the demo, and a Hub beside synchronous code

The first block serves any `Repositories` and knows nothing of the second. To serve more than this Hub does, subclass
`EmbeddedHub` and extend its applications and middlewares: handlers return responses that are not sent yet, so that a
middleware can change headers, the range, and how the body is written.
"""
