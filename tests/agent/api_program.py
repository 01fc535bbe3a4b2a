"""The API server's double in a process of its own: api_program.py FOLDER. Each line of standard input is [method, arguments...]; each
gets a line as its answer."""
import json
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from peers.api_server import ApiServer  # noqa: E402


class Server(ApiServer):
    last_store = 0

    def _store(self, resource, kind_of_event, key, value):
        self.last_store = time.monotonic()
        return super()._store(resource, kind_of_event, key, value)

    def flip(self, name, labels):
        self.put_namespace(name, labels)
        return time.monotonic()

    def put_many(self, pods):
        for pod in pods:
            self.put("pods", pod)

    def annotated(self):
        """How many pods are enabled, when anything changed last, and what the agent did wrong."""
        with self.changed:
            enabled = sum(pod["metadata"]["annotations"].get("ambient.istio.io/redirection") == "enabled"
                          for pod in self.objects["pods"].values())
        return enabled, self.last_store, self.violations


def main():
    server = Server(sys.argv[1])
    for line in sys.stdin:
        method, *arguments = json.loads(line)
        answer = getattr(server, method)(*arguments)
        print(json.dumps(answer if isinstance(answer, (int, float, list, tuple)) else None), flush=True)
    server.stop()


if __name__ == "__main__":
    main()
