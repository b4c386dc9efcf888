"""What one container prints, as it comes and each byte once, across lost connections."""

from collections.abc import Callable, Generator

from run_cycle_loop.clients.kubernetes.api import Cluster
from run_cycle_loop.clients.kubernetes.errors import (
    Invalid,
    KubernetesError,
    NotFound,
    ServerFault,
    TooManyRequests,
    Unauthorized,
    Unreachable,
)
from run_cycle_loop.model.ports import Clock

BEAT = 0.2  #: seconds that silence is listened to
_PASSING = (TooManyRequests, ServerFault, Unreachable)
_PAUSE = 1.0  #: seconds before it is asked for again
_SETTLING = 5.0  #: seconds in which a container whose output has ended should be known to have ended as well
_SILENCE = 10.0  #: seconds without output, after which that of a container which has ended is taken to be complete
_PATIENCE = 60.0  #: seconds of failures without a success
_MARK = 4096  #: bytes by which it is known again after a lost connection


class PodLog:
    """The output of one container of one pod; pumped by whoever follows the pod."""

    def __init__(self, cluster: Cluster, pod: str, namespace: str, *, container: str | None, clock: Clock) -> None:
        self.pod = pod
        self.trouble = ""  #: why it is not complete; empty as far as it is
        self._cluster, self._namespace, self._container, self._clock = cluster, namespace, container, clock
        self._stream: Generator[bytes, None, None] | None = None
        self._over = False
        self._ended_at: float | None = None  #: when the output ended
        self._heard_at: float | None = None  #: when it printed last, or was first known to have ended
        self._not_before = 0.0
        self._failing_since: float | None = None
        self._renewed = False
        self._shown = 0  #: bytes handed on
        self._mark = b""  #: the last of them
        self._skip = 0  #: bytes of this stream that were handed on before
        self._skipped = b""
        self._silent_since: float | None = None

    def pump(self, output: Callable[[bytes], object], *, has_ended: bool, seconds: float = 0.3) -> bool:
        """Hand on what has come, for so long at most; waits a beat where nothing has. Whether all of it is out.

        Args:
            output: takes it.
            has_ended: whether the container is known to have ended.
            seconds: after which the caller's other affairs get their turn.
        """
        if not self._is_out(has_ended=has_ended):
            self._listen(output, seconds)
        if has_ended and self._stream is not None:
            self._end_a_stream_that_does_not()
        return self._is_out(has_ended=has_ended)

    def _listen(self, output: Callable[[bytes], object], seconds: float) -> None:
        if self._stream is None:
            if self._clock.monotonic() < self._not_before:
                return
            self._stream, self._skip, self._skipped = self._opened(), self._shown, b""
        try:
            self._take(self._stream, output, until=self._clock.monotonic() + seconds)
        except NotFound:
            self._give_up(f"pod {self.pod} is gone, and with it the rest of its output")
        except KubernetesError as error:
            self._weigh(error)

    def _end_a_stream_that_does_not(self) -> None:
        """A node that lost the end of a container keeps its log open for ever."""
        now = self._clock.monotonic()
        self._heard_at = now if self._heard_at is None else self._heard_at
        if now - self._heard_at > _SILENCE:
            self.close()
            self.trouble = f"the output of pod {self.pod} was not seen to end: something may be missing"

    def close(self) -> None:
        """Listen no longer."""
        if self._stream is not None:
            self._stream.close()
        self._stream, self._over = None, True

    def _is_out(self, *, has_ended: bool) -> bool:
        if self._over or self._ended_at is None:
            return self._over
        if has_ended:
            self._over = True
        elif self._clock.monotonic() - self._ended_at > _SETTLING:
            self._ended_at = None  # the output ended, and the container did not: it is asked for again
        return self._over

    def _opened(self) -> Generator[bytes, None, None]:
        return self._cluster.log(self.pod, self._namespace, container=self._container, follow=True, beat=BEAT)

    def _take(self, stream: Generator[bytes, None, None], output: Callable[[bytes], object], *, until: float) -> None:
        while True:
            piece = next(stream, None)
            if piece is None:
                if self._skip:
                    self._say_rotated()
                self._stream, self._ended_at = None, self._clock.monotonic()
                self._not_before = self._ended_at + _PAUSE
                return
            self._failing_since, self._renewed = None, False
            if not piece:
                self._weigh_silence()
                return
            self._heard_at = None
            self._silent_since = None
            if fresh := self._fresh(piece):
                output(fresh)
            if self._clock.monotonic() >= until:
                return

    def _weigh_silence(self) -> None:
        """What is less than was there before, and does not go on, is another file: what comes next is new."""
        now = self._clock.monotonic()
        self._silent_since = now if self._silent_since is None else self._silent_since
        if self._skip and now - self._silent_since > _SETTLING:
            self._say_rotated()
            self._shown, self._mark, self._skip = self._shown - self._skip, self._skipped, 0

    def _say_rotated(self) -> None:
        self.trouble = f"the output of pod {self.pod} was rotated meanwhile: something may be missing"

    def _fresh(self, piece: bytes) -> bytes:
        """What of a piece was not handed on before a connection was lost."""
        if self._skip:
            known, piece = piece[: self._skip], piece[self._skip :]
            self._skip -= len(known)
            self._skipped = (self._skipped + known)[-_MARK:]
            if self._skip:
                return b""
            if self._skipped != self._mark:
                self._say_rotated()
        self._shown += len(piece)
        self._mark = (self._mark + piece)[-_MARK:]
        return piece

    def _weigh(self, error: KubernetesError) -> None:
        self._stream = None
        now = self._clock.monotonic()
        if isinstance(error, Invalid):
            self._not_before = now + _PAUSE  # its container has not begun
            return
        if isinstance(error, Unauthorized) and not self._renewed:
            self._renewed = True
            self._cluster.renew()
        elif not isinstance(error, _PASSING):
            self._give_up(str(error))
            return
        self._failing_since = now if self._failing_since is None else self._failing_since
        self._not_before = now + max(_PAUSE, min(error.retry_after or 0.0, _PATIENCE))
        if now - self._failing_since > _PATIENCE:
            self._give_up(str(error))

    def _give_up(self, why: str) -> None:
        self.trouble, self._over, self._stream = why, True, None
