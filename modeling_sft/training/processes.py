"""What several processes of one run do together."""

import time

# Seconds; the threads need microseconds, on a machine under load milliseconds.
_PAUSE = 0.2


def leave_together() -> None:
    """Wait until all processes are here, after which each may exit.

    The threads of gloo, the backend on CPUs, drop the tensors of the last exchange only after it, for which they need
    the interpreter: one that is already exiting is aborted (pytorch/pytorch#179291), and the launcher then ends the
    other processes as well. The pause leaves the interpreter to them.
    """
    from accelerate import PartialState  # an extra: imported where it is needed

    state = PartialState()
    if state.num_processes > 1:
        state.wait_for_everyone()
        time.sleep(_PAUSE)
