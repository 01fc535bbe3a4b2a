"""Pods of the mesh that come and go without end, in a thread: each must have its first packet carried by the tunnel."""
import contextlib
import threading
import time

from .api import ApiError
from .machine import ADDRESS
from .pods import container, pod


class Churn:
    """Several pods at a time, made and deleted as fast as they come up."""

    def __init__(self, workspace, port, width=2):
        self.workspace, self.api = workspace, workspace.api
        self.once = f"workload first {ADDRESS[workspace.cluster.family]} {port}"
        self.finished, self.problems = [], []
        self.is_over = threading.Event()
        self.threads = [threading.Thread(target=self._run, args=(number,), daemon=True) for number in range(width)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.is_over.set()
        for thread in self.threads:
            thread.join(120)

    def _call(self, function, *arguments, **more):
        """The API server may be away for a while."""
        while True:
            try:
                return function(*arguments, **more)
            except ApiError as error:
                if error.status < 500 and error.status != 429:
                    raise
            except OSError:
                pass
            time.sleep(0.2)

    def _run(self, number):
        round_number = 0
        while not self.is_over.is_set():
            round_number += 1
            name = f"churn-{number}-{round_number}"
            # One attempt: the very first packet counts. The container says what the init container heard.
            item = pod(name, self.workspace.name, container("idle", "workload", "pause"),
                       init=[container("init", "sh", "-c", f"{self.once}; true")])
            try:
                self._live(name, item)
            except Exception as error:  # pylint: disable=broad-exception-caught
                self.problems.append(f"{name}: {error!r}")

    def _live(self, name, item):
        with contextlib.suppress(ApiError):  # it may exist: the answer was lost
            self._call(self.api.create, item)
        end = time.monotonic() + 120
        while True:
            now = self._call(self.api.find, "Pod", self.workspace.name, name)
            if now and now["status"].get("phase") == "Running":
                break
            if time.monotonic() > end:
                self.problems.append(f"{name} did not start in 120 s: {now and now['status']}")
                break
            time.sleep(0.2)
        if now and now["status"].get("phase") == "Running":
            said = self._call(self.api.log, self.workspace.name, name, "init").strip()
            self.finished.append((name, now["metadata"]["uid"], said))
        self._call(self.api.delete, "Pod", self.workspace.name, name)
        while self._call(self.api.find, "Pod", self.workspace.name, name) is not None:
            if time.monotonic() > end + 60:
                self.problems.append(f"{name} does not go")
                return
            time.sleep(0.2)

    def check(self, events, at_least=3):
        """After the end: all got their answer, by the tunnel, and the tunnel was told of their end."""
        assert not self.problems, "\n".join(self.problems)
        assert len(self.finished) >= at_least, self.finished
        carried = {event["uid"] for event in events.all(event="outbound")}
        ended = {event["uid"] for event in events.all(event="stopped")}
        for name, uid, said in self.finished:
            assert said.startswith("pong 1"), f"{name}: {said}"
            assert uid in carried, f"{name}: its first packet did not pass the tunnel"
        return [name for name, uid, _ in self.finished if uid not in ended]
