"""What is measured, against whom: `make bench`, or `python -m bench --help`.

cases     the cases of the contract: which files, how they are served, against whom, which ratio is to be held
data      the files themselves, made once, served from memory
servers   nginx, its certificate, the embedded Hub that redirects to it
relay     the cap on each connection, and the exact count of what went over it
tools     how ours and each peer bring one case's files; all of them as whole commands
measure   wall time, processor time, peak memory of a command
runner    ours and theirs in turn, case by case
kill      `kill -9` in the middle, again and again: what is sent twice
install   gets the peers
readers   why ranges are read by threads: aiohttp and blocking sockets, side by side
report    medians, ratios, RESULTS.md
"""
