"""A mount namespace of a test's own, that goes with the test."""
import subprocess


class Mounts:
    def __enter__(self):
        self.process = subprocess.Popen(["unshare", "--mount", "--propagation", "private", "sh", "-c", "echo; exec cat"],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.process.stdout.readline()
        self.enter = ("nsenter", f"--target={self.process.pid}", "--mount", "--")
        return self

    def run(self, *command, check=True):
        return subprocess.run([*self.enter, *command], check=check, capture_output=True, text=True)

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()
