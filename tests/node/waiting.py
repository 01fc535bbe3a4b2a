"""Waiting for something, with a sentence for when it does not come."""
import time


def wait_until(condition, seconds, what, period=0.1, explain=None):
    """Returns the first true value of condition(); AssertionError, with what explain() says, when the time is over."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds} s in vain: {what}" + (f"\n{explain()}" if explain else ""))
        time.sleep(period)
