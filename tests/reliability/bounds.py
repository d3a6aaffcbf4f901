"""Limits of the servers here: those of docs/operations.md, short enough to be waited for."""

from process import MIB

# Times by which a client that does nothing is ended, short ones of those that docs/operations.md lists.
HEADER_SECONDS, BODY_SECONDS, IDLE_SECONDS, WRITE_SECONDS = 2, 4, 6, 2
BODY_MAX = 8 * MIB
SHORT = {
    "KINGLET__LIMITS__HEADER_TIMEOUT": f"{HEADER_SECONDS}s",
    "KINGLET__LIMITS__BODY_TIMEOUT": f"{BODY_SECONDS}s",
    "KINGLET__LIMITS__BODY_RATE_WINDOW": "1s",
    "KINGLET__LIMITS__IDLE_TIMEOUT": f"{IDLE_SECONDS}s",
    "KINGLET__LIMITS__WRITE_TIMEOUT": f"{WRITE_SECONDS}s",
    "KINGLET__LIMITS__HTTP2_KEEPALIVE_INTERVAL": "2s",
    "KINGLET__LIMITS__HTTP2_KEEPALIVE_TIMEOUT": "3s",
    "KINGLET__LIMITS__BODY_BYTES_MAX": f"{BODY_MAX}B",
}
