"""The Hub of the tests and benchmarks: the embedded Hub, instrumented.

server      InstrumentedHub: the embedded Hub with all of the below around its handlers, its options
access      tokens, gated and private repositories        ledger    what was asked for and what was sent
faults      what goes wrong, path by path                 control   both, over HTTP, from another process
standard    its repositories, odd cases too               models    valid GGUF and safetensors of any size
process     HubProcess: it in a process of its own, steered by synchronous code; `python -m tests.hub`
balancer    a load balancer of llmlb, with the same faults and ledger
"""
