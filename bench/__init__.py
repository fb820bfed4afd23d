"""What is measured, against whom: `make bench`, or `python -m bench --help`.

cases     the cases of the contract: which files, how they are served, against whom, which ratio is to be held
data      the files themselves, made once, served from memory
servers   nginx, its certificate, the embedded Hub that redirects to it
relay     the cap on each connection, and the exact count of what went over it
tools     how ours and each peer bring one case's files; all of them as whole commands
measure   wall time, processor time, peak memory of a command
kill      `kill -9` in the middle, again and again: what is sent twice
install   gets the peers
report    medians, ratios, RESULTS.md
"""
