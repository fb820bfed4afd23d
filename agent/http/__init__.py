"""The HTTP face: what goes on, told over a Unix socket and loopback (docs/http.md).

    server        put together: listeners, application, start and stop
    listeners     opening sockets; connections    who is connected, and who is cut off
    guard         who may ask for what: Host, Origin, token, peer credentials; errors   refusals as JSON

    publisher     one subscriber of the feed, which keeps:
    log           the numbered history of events
    wants         the wants by path, with counts
    streams       readers of the log: server-sent events, WebSocket

    reads         status, wants, models, health: documents over what the others keep
    models        what is published, from the store's records
    metrics       the same in numbers, for Prometheus
    hub/          the Hub's own routes over the published models
    assets, page/ the page

Nothing here holds a want up: handlers read what the publisher keeps, and disk is touched in threads. Modules are
imported when the first listener opens, so an agent with `http.listen = []` costs what it did without them.
"""
