"""What a demonstration prints: steps with what is done, what is expected and what was seen; checks; the last line."""
import sys
import time


class Report:
    def __init__(self, out=sys.stdout):
        self.out = out
        self.is_colourful = out.isatty()
        self.steps = self.checks = self.failed = self.opened = self.lost = 0
        self.started = time.monotonic()

    def _print(self, text=""):
        print(text, file=self.out, flush=True)

    def _colour(self, code, text):
        return f"\033[{code}m{text}\033[0m" if self.is_colourful else text

    def title(self, text):
        self._print(self._colour("1", text))

    def note(self, text):
        for line in text.splitlines():
            self._print(f"             {line}")

    def step(self, title):
        self.steps += 1
        self._print()
        self._print(self._colour("1", f"{self.steps}. {title}"))

    def done(self, text):
        self._print(f"   done      {text}")

    def expect(self, text):
        self._print(f"   expected  {text}")

    def seen(self, is_good, text):
        """One check: `text` says what was seen, good or bad."""
        self.checks += 1
        self.failed += not is_good
        verdict = self._colour("32", "ok    ") if is_good else self._colour("1;31", "FAILED")
        self._print(f"   seen  {verdict}  {text}")
        return is_good

    def connections(self, opened, lost):
        self.opened += opened
        self.lost += lost

    def finish(self):
        """The last line and the exit status."""
        self._print()
        self._print(f"{time.monotonic() - self.started:.1f} s")
        last = f"{self.checks} checks, {self.failed} failed; new connections {self.opened} opened, {self.lost} lost"
        is_good = self.failed == 0 and self.lost == 0 and self.checks > 0
        self._print(self._colour("1;32" if is_good else "1;31", last))
        return 0 if is_good else 1
