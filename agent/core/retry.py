"""Patience: how often something is tried, how long it is waited for, and when a source is left alone.

`Backoff` says how long to wait before the next try: exponential with full jitter, or not at all. Full jitter
(https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/) spreads a thousand hosts that lost one
server at the same moment. The caller counts the attempts, from the last byte of progress.

Below it stands every fixed "how often" and "how long", with its reason, by who is patient. Names that end in `_S` are
seconds. What a person may set is in `agent.config`; how fast bytes flow, and how large things are, is where it is used.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.errors import Code, WantdError

_MAX_DOUBLINGS = 32  # 2**32 s is past every ceiling; keeps the power a small number


@dataclass(frozen=True, slots=True)
class Backoff:
    """Bounds in seconds; `attempts` is how many failures in a row are allowed, None for any number."""

    min_s: float = 1.0
    max_s: float = 300.0
    attempts: int | None = None

    def delay(self, attempt: int, error: WantdError, random: float) -> float | None:
        """Seconds until the next try after failure number `attempt` (1 is the first) without progress between.

        `random` is in [0, 1). None means give up: the error is final, or there were enough. What a
        server asked for (`error.retry_after_s`) is never undercut, and spread upwards by the jitter of the first
        attempt, so that those it sent away do not come back in one moment. Thousands may wait for a server that is
        overloaded (503): it is asked less and less often all the same.
        """
        if not error.retryable or (self.attempts is not None and attempt >= self.attempts):
            return None
        grown = self.pause(attempt, random)
        if error.retry_after_s is None:
            return grown
        asked = max(error.retry_after_s, 0.0) + random * self.min_s
        return asked if error.code is Code.RATE_LIMITED else max(asked, grown)

    def pause(self, attempt: int, random: float) -> float:
        """Seconds after failure number `attempt` of something that is tried without end."""
        ceiling = min(self.max_s, self.min_s * 2.0 ** min(max(attempt, 1), _MAX_DOUBLINGS))
        return self.min_s + random * max(ceiling - self.min_s, 0.0)


# -- wants ------------------------------------------------------------------------------------------------------------

# A new want is a new request, and has a failed model tried again; within so long of the failure it is told of it
# instead: a thousand wants for one misspelled model, dropped at once, are one question to the Hub.
FAILURE_REMEMBERED_S = 10.0

# -- every connection -------------------------------------------------------------------------------------------------

CONNECT_S = 10.0  # to connect to one address, and for the TLS handshake: three lost SYNs take 7 s

# -- small exchanges (net/client.py) ----------------------------------------------------------------------------------

HEAD_S = 30.0  # to the whole head of a response; a Hub that lists 60,000 files thinks for some seconds
BODY_S = 60.0  # for the whole body: 16 MiB at 300 kB/s
METADATA_BUDGET_S = 10.0  # a host's budget is waited for this long in an exchange; for more, the caller parks
METADATA_IDLE_S = 3.0  # idle connections are kept for less than servers keep them: uvicorn and Node close after 5 s

# -- what a host allows (net/budget.py) -------------------------------------------------------------------------------

SERVER_WAIT_MAX_S = 3600.0  # a Retry-After of a year must not stop us for a year; the Hub's windows are 300 s
UNTOLD_WAIT_S = 5.0  # after a 429 that does not say for how long; doubles with each one in a row
REFUSED_WAIT_MIN_S = 1.0  # `Retry-After: 0` on a refusal is no leave to ask in a tight loop
RESUME_SPACING_S = 0.1  # between requests after a wait, until a response says that all is well

# -- plans (jobs/runner.py) ------------------------------------------------------------------------------------------

# Of 16 places for plans, each is kept so long where sources have failed 16 in a row: 32 tries a second at most.
FAILED_PLAN_S = 0.5

# -- sources ----------------------------------------------------------------------------------------------------------

SOURCE_FAULTS = 3  # responses 5xx in a row after which a source counts as down; one may be about one model alone
DOWN_S = 2.0  # a source that could not be reached is left alone for so long at first: most outages are short,
DOWN_MAX_S = 30.0  # and twice as long with each probe that fails, up to this; no want waits for a probe
LOCATION_STRIKES = 3  # locations of one source that may fail in a row for one file before the next source is asked
# A fallback that gave a file with another hash has another version of it: not to be fetched again at each retry.
WRONG_FILE_S = 3600.0
UNUSABLE_FILE_S = 60.0  # the same for one that gave nothing usable, which is found out without its bytes
MANIFEST_S = 60.0  # a load balancer's manifest is asked for again after so long: once for the files of one model
REPORT_CONNECT_S = 2.0  # a progress report to the load balancer is worth little, and the next one comes in seconds
REPORT_S = 3.0  # the same for its response

# -- the fleet (sources/fleet.py) --------------------------------------------------------------------------------------

DOOR_CONNECT_S = 1.0  # the door is on this host, or as near: a connection takes less than a millisecond
DOOR_OPEN_S = 1.0  # the files of one model are located within moments of each other: one look serves them
DOOR_SHUT_S = 30.0  # nginx is restarted within seconds; a host that is rebuilt is not asked for at each file
FLEET_STRIKES = 4  # failures until the Hub is asked for a file: a member that dies in mid-slice is one, and two may die

# -- what other programs of this host have (sources/host_caches.py) ------------------------------------------------

HOST_CACHES_S = (
    60.0  # an index of their caches is used for so long: a file that another tool has just fetched counts soon
)

# -- connections of the transfer (transfer/http.py and below) ---------------------------------------------------------

LANE_BUDGET_S = 2.0  # a lane itself waits for a host's budget this long; for more, the lane is given back
IDLE_CONNECTION_S = 20.0  # a connection is kept for the next request; nginx keeps 75 s, some CDNs no more than 30
STALL_POLLS = 30  # a silent socket is looked at this often within the stall time
TLS_READ_S = 1.0  # for one read of TLS while no content comes; the caller has an eye on the clock in between

# -- lanes of the transfer --------------------------------------------------------------------------------------------

TICK_S = 0.2  # between two looks at lanes and progress
MEASURE_S = 0.1875  # one measurement of the rate, a little less than the tick; 16 lanes of 1 MB/s make 50 reads in it
MEASURE_DOUBTS = 2  # measurements in a row without a gain before more connections are given up: a disk's hiccup is one
HOLD_S = 15.0  # for which no more connections are tried after that; each try costs as much as it may gain
CROWDED_S = 15.0  # for which a host that refused one more connection is not asked for one more
SETTLE_S = 0.25  # a lane is at work for so long before it is taken back to level shares: with the tick, under 0.5 s
SLICE_S = 2.0  # a lane is at one file for so long before another file without one gets it: as long as a range lasts
COLLAPSE_S = 10.0  # of a rate far below its best before a host is taken to hold back: a hiccup of a network is shorter
TRIAL_S = 3.0  # each lower number of connections is tried for so long; from 16 to 4, that is 6 s
REMEMBER_S = 1800.0  # a number that helped is kept for so long: hosts that throttle do so for many minutes
SLOW_ADDRESS_S = 300.0  # an address far slower than another of its host is left alone for so long
BAD_ADDRESS_S = 60.0  # the same for one that could not be connected to
ATTEMPT_S = 0.25  # between the starts of two attempts to connect (RFC 8305 section 5, Connection Attempt Delay)
SLOW_AFTER_S = 3.0  # a lane is watched before it is judged; TCP has left its slow start by then
REPLACE_MAX_S = 300.0  # between two replacements of slow lanes of a file, which wait twice as long each time in a row
SPLIT_AFTER_S = 1.0  # a lane must still be busy for so long before an idle one takes half of its rest
LEAVE_S = 0.5  # a cancelled fetch waits for its lanes
CLOSE_S = 2.0  # the engine waits for its threads when it closes; one may be looking up a name

# -- one fetch of the transfer ----------------------------------------------------------------------------------------

FETCH_FAILURES = 5  # in a row without progress before the job parks: with waits of 1 to 16 s half a minute
FETCH_REFUSALS = 3  # responses in a row that cannot be used, each from a new location, before it is final
FETCH_BUDGET_S = 20.0  # a host's budget is waited for this long; for more, the job parks and gives its place away
FILE_CHANGES = 3  # times a file may change while it is fetched
HASH_MISMATCHES = 2  # times a file may come whole with a wrong hash: the second is the source's fault, not the way's
DISK_MISMATCHES = 2  # times granules are fetched again that the disk gave back otherwise than they were written
PARTIAL_POLL_S = 0.25  # between looks at a partial that another fetch holds
PARTIAL_WAIT_S = 300.0  # of those looks before the job parks; the same patience as for a lock

# -- looking at the spool (requests/lookout.py) ------------------------------------------------------------------------

SCAN_REST = 4.0  # times a scan's own duration until the next: in a flood at most a fifth of the time goes into them
GLANCE_S = 0.3  # a want in a quiet directory is to be served within 2 s whatever goes on in the others
CHECK_REST = 50.0  # times a scan's own duration until one that checks the watch: 2 % of the time at most
MISSED_S = 3.0  # a change that is older, and that no event told of, was missed by the watch

# -- what is due by the clock (upkeep.py) and who is told -------------------------------------------------------------

VIEW_LOCK_S = 5.0  # another agent that works on the view of the same store takes milliseconds for each repository
VIEW_LOCK_POLL_S = 0.02  # a published model waits for that before it is ready
REVISIT_S = 5.0  # for the Hub's answer about a model that is there and was chosen by older rules: it is ready without
REVISIT_AGAIN_S = 30.0  # and after an attempt without one it is ready at once for so long
STORE_CHECK_S = 2.0  # some stats; a store or partials that somebody removed are made again while downloads run
LOCK_POLL_S = 0.25  # portalocker's own interval; a waiter starts at most this late
CATALOG_CHECK_S = 2.0  # an editor's save takes effect while its author watches
DISK_CHECK_S = 5.0  # a statvfs; a person who makes room sees the download continue
ROOM_CHECK_S = 30.0  # a store above its quota, a disk that others fill, models unused for days: none is in a hurry
ROOM_SETTLE_S = 2.0  # XFS and btrfs free the blocks of removed files in the background
ROOM_SETTLE_POLL_S = 0.1  # a statvfs
LEAVING_S = 5.0  # for which a look at a model that was just removed may still say that it is there
SWEEP_S = 3600.0  # partials expire after days: once an hour is often enough
WATCH_CHECK_S = 2.0  # the thread behind the spool's watch may have died: one look at a flag
SLOTS_CHECK_S = 1.0  # a larger transfer.jobs takes effect
BALANCER_S = 2.0  # a person who watches a dashboard sees it move
BALANCER_AGAIN_S = 30.0  # the same is reported again after so long: the balancer may have been restarted
WINDOW_CHECK_S = 1.0  # a window that begins or ends, or a clock that jumps, is noticed within a second
HOOK_RUN_S = 60.0  # a hook that takes longer hangs; it should put long work elsewhere
HOOK_RETRY_MIN_S = 2.0  # a service that is being restarted is back in seconds
HOOK_RETRY_MAX_S = 900.0  # one that is down for hours is asked four times an hour
HOOK_GIVE_UP_S = 86_400.0  # after a day nobody waits for the news any more
SYSTEMD_S = 1.0  # `systemctl status` is read by people: once a second is often enough
STOP_S = 3.5  # of the 5 s that stopping may take in all
LEFT_S = 0.3  # for threads that are about to end when all else has; one that hangs is left
