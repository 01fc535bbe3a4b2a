"""An API server, or a network, that misbehaves: the source gets over it, loses nothing, and is never in a hurry."""
import time

import pytest


def change_is_seen(server, tool, name="after"):
    server.put_pod("shop", name)
    tool.put("pod", name)


@pytest.fixture
def synced(server, start):
    server.put_namespace("shop")
    server.put_pod("shop", "cart")
    tool = start(silence=2000)
    tool.synced()
    return tool


@pytest.mark.parametrize("order", ["end", "close", "reset"])
def test_a_watch_that_breaks_goes_on_where_it_was(server, synced, order):
    server.order_watchers(order)
    change_is_seen(server, synced)
    assert synced.statistics()["pod_lists"] == 1


@pytest.mark.parametrize("as_event", [True, False])
def test_what_happened_during_a_break_is_gone(server, synced, as_event):
    """410: it is listed anew; what was deleted meanwhile is not put between list_started and list_finished."""
    server.gone_as_event = as_event
    with server.changed:
        server.order_watchers("close", "pods")
        server.delete_pod("shop", "cart")
        server.put_pod("shop", "other")
        server.compact()
    synced.next(told="list_started", kind="pod")
    line = synced.next(told="list_finished", kind="pod")
    assert [entry["metadata"]["name"] for entry in line["before"] if entry["told"] == "put"] == ["other"]
    change_is_seen(server, synced)
    assert "trouble" not in synced.told("pod"), "an expired version is everyday life"


@pytest.mark.parametrize("as_event", [True, False])
def test_a_server_that_was_away_and_has_forgotten(server, synced, as_event):
    """Seen on a real node: the pauses of the outage went on growing after the API server was back, since it answered by 410."""
    server.gone_as_event = as_event
    with server.changed:
        server.fail("GET .*/pods.*watch", 503, times=4)
        server.order_watchers("close", "pods")
        server.delete_pod("shop", "cart")
        server.compact()
    assert "503" in synced.next(told="trouble", kind="pod")["reason"]
    synced.next(told="list_finished", kind="pod")
    reasons = [line["reason"] for line in synced.lines if line["told"] == "trouble" and line["kind"] == "pod"]
    assert not [reason for reason in reasons if "410" in reason or "too old" in reason], "that is no failed try"
    change_is_seen(server, synced)


def test_an_expired_watch_lists_in_pages_read_consistently(server, start):
    server.streaming_lists = False
    for number in range(5):
        server.put_pod("shop", f"pod-{number}")
    tool = start(page=2)
    tool.synced()
    server.wait(lambda: any(watcher.resource == "pods" for watcher in server.watchers))
    server.order_watchers("expire", "pods")
    tool.next(told="list_started", kind="pod")
    line = tool.next(told="list_finished", kind="pod")
    assert len([entry for entry in line["before"] if entry["told"] == "put"]) == 5
    pages = [path for _, path, status in server.requests if "/pods?limit=2" in path and status == 200]
    assert "resourceVersion=0" in pages[0] and not any("resourceVersion" in page for page in pages[1:]) and len(pages) == 4
    change_is_seen(server, tool)


@pytest.fixture
def server_with_pages(server):
    """Five pods, listed by two, and the list ends as it began."""
    server.streaming_lists = False
    server.pages_from_cache = True
    for number in range(5):
        server.put_pod("shop", f"pod-{number}")
    return server


def test_the_rest_of_a_list_expires(server_with_pages, start):
    server = server_with_pages
    server.fail("GET .*/pods.*continue=", 410)
    tool = start(page=2)
    tool.synced()
    told = tool.told("pod")
    assert told.count("list_started") == 2 and told[-1] == "list_finished" and told.count("put") == 7
    change_is_seen(server, tool)


def test_a_page_that_fails_is_asked_for_again(server_with_pages, start):
    server_with_pages.fail("GET .*/pods.*continue=", 500)
    server_with_pages.fail("GET .*/pods.*continue=", 0)
    tool = start(page=2)
    tool.synced()
    told = [word for word in tool.told("pod") if word not in ("trouble", "well")]
    assert told == ["list_started", *["put"] * 5, "list_finished"]


HOSTILE = {
    "no JSON": b"this is no JSON\n",
    "half an object": b'{"type":"ADDED","object":{"metadata":\n',
    "no type": b'{"object":{"metadata":{"name":"x","resourceVersion":"1"}}}\n',
    "an unknown type": b'{"type":"EXPLODED","object":{"metadata":{"name":"x","resourceVersion":"1"}}}\n',
    "no object": b'{"type":"ADDED","object":[]}\n',
    "no version": b'{"type":"ADDED","object":{"metadata":{"name":"x"}}}\n',
    "no name": b'{"type":"ADDED","object":{"metadata":{"name":7,"resourceVersion":"5"}}}\n',
    "deep nesting": b'{"type":"ADDED","object":' + b"[" * 100000 + b"\n",
    "a number for a text": b'{"type":7,"object":{}}\n',
    "NUL bytes": b'{"type":"ADDED"\x00,"object":{}}\n',
    "an error of no form": b'{"type":"ERROR","object":{"code":"x"}}\n',
    "two values in a line": b'{} {}\n',
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_events(server, synced, name):
    server.order_watchers(HOSTILE[name], "pods")
    trouble = synced.next(told="trouble", kind="pod")
    assert len(trouble["reason"]) > 20 and "x" != trouble["reason"]
    synced.next(told="list_started", kind="pod")
    synced.next(told="list_finished", kind="pod")
    synced.next(told="well", kind="pod")
    change_is_seen(server, synced)


@pytest.fixture
def without_bookmarks(server):
    """None come between what a test sends by hand."""
    server.bookmark_seconds = 60


def test_an_endless_event(without_bookmarks, server, synced):
    """Neither one line in many chunks nor one chunk without an end is kept in memory."""
    for _ in range(45):
        server.order_watchers(b"x" * 100000, "pods")
        server.wait(lambda: not any(watcher.order for watcher in server.watchers))
    trouble = synced.next(told="trouble", kind="pod")
    assert "longer than 4194304 bytes" in trouble["reason"]
    synced.next(told="list_finished", kind="pod")
    server.wait(lambda: any(watcher.resource == "pods" for watcher in server.watchers))
    server.order_watchers(b"y" * (5 << 20), "pods")
    assert "more than 4194304 bytes at once" in synced.next(told="trouble", kind="pod")["reason"]
    synced.next(told="list_finished", kind="pod")
    change_is_seen(server, synced)


def test_an_event_cut_in_two(server, synced):
    server.order_watchers("truncate", "pods")
    assert "in the middle of an event" in synced.next(told="trouble", kind="pod")["reason"]
    synced.next(told="list_finished", kind="pod")
    change_is_seen(server, synced)


def test_an_event_in_pieces(without_bookmarks, server, synced):
    event = b'{"type":"ADDED","object":{"metadata":{"name":"slow","namespace":"shop","resourceVersion":"1099"}}}\n'
    for at in range(0, len(event), 10):
        server.order_watchers(event[at:at + 10], "pods")
        server.wait(lambda: not any(watcher.order for watcher in server.watchers))
    synced.put("pod", "slow")
    assert "trouble" not in synced.told("pod")


@pytest.mark.parametrize("list_body", [b"", b"[]", b"{", b'{"items":[{"metadata":{"name":"x"}},', b'{"metadata":{},"items":[]}',
                                       b'{"metadata":{"resourceVersion":"5"},"items":[{"metadata":{}}]}',
                                       b'{"metadata":{"resourceVersion":"5"},"items":{}}', b'{"metadata":{"resourceVersion":"5"}}}'])
def test_hostile_lists(server, start, list_body):
    server.streaming_lists = False
    server.put_pod("shop", "cart")
    server.fail("GET .*/pods.*limit=", 200, body=list_body)
    tool = start()
    assert tool.next(told="trouble", kind="pod")["reason"]
    tool.next(told="list_finished", kind="pod")
    tool.next(told="well", kind="pod")
    change_is_seen(server, tool)


def test_silence_is_a_broken_connection(server, synced):
    """Half open: the connection stands, and nothing comes, not even a bookmark."""
    assert server.order_watchers("silence") == 2
    begun = time.monotonic()
    change_is_seen(server, synced)
    assert 1 < time.monotonic() - begun < 6
    statistics = synced.statistics()
    assert statistics["pod_lists"] == 1 and statistics["watch_restarts"] == 2
    # Bookmarks alone keep a watch alive.
    time.sleep(2.5)
    assert synced.statistics()["watch_restarts"] == 2


def test_too_many_requests(server, start):
    server.put_pod("shop", "cart")
    server.fail("GET .*/pods.*watch", 429, retry_after=1)
    begun = time.monotonic()
    tool = start()
    assert "429" in tool.next(told="trouble", kind="pod")["reason"]
    tool.next(told="list_finished", kind="pod")
    assert time.monotonic() - begun >= 1
    tool.next(told="well", kind="pod")

    # One 429 holds back the whole client, not the one request.
    pod = server.put_pod("shop", "second")
    server.fail("PATCH", 429, retry_after=1)
    change = {"namespace": "shop", "name": "second", "uid": pod["metadata"]["uid"], "key": "k", "value": "v"}
    numbers = [tool.start("annotate", **change) for _ in range(3)]
    server.wait(lambda: any(status == 429 and method == "PATCH" for method, _, status in server.requests))
    begun = time.monotonic()
    number = tool.start("get_pod", namespace="shop", name="second")
    assert {tool.next(outcome="done")["answer"] for _ in range(4)} == {*numbers, number}
    assert time.monotonic() - begun > 0.8
    assert tool.statistics()["requests"]["retried"] == 1


@pytest.mark.parametrize("status", [500, 502, 503, 504, 0, "close", "truncate"])
def test_requests_are_sent_again(server, synced, status):
    pod = server.put_pod("shop", "second")
    server.fail("PATCH", status, times=2)
    answer = synced.ask("annotate", namespace="shop", name="second", uid=pod["metadata"]["uid"], key="k", value="v")
    assert answer["outcome"] == "done" and server.pod_annotation("shop", "second", "k") == "v"
    requests = synced.statistics()["requests"]
    assert requests["retried"] == 2 and requests["success"] == 1


def test_an_answer_that_is_no_json_is_none(server, synced):
    server.fail("GET .*/pods/cart", 200, body=b"<html>")
    answer = synced.ask("get_pod", namespace="shop", name="cart")
    assert answer["outcome"] == "done" and answer["object"]["metadata"]["name"] == "cart"


def test_a_deadline(server, synced):
    server.fail("GET .*/pods/cart", "hang", times=9)
    begun = time.monotonic()
    answer = synced.ask("get_pod", namespace="shop", name="cart")
    assert answer["outcome"] == "failed" and "no answer from the API server" in answer["error"]
    assert 2.5 < time.monotonic() - begun < 5
    change_is_seen(server, synced)


def test_an_event_is_not_written_twice(server, start):
    """Sent again only where the server surely has not done it."""
    tool = start(node=None)
    server.fail("POST", 0)
    assert tool.ask("event", namespace="shop", name="cart", reason="X", message="m")["status"] == 0
    server.fail("POST", 503)
    assert tool.ask("event", namespace="shop", name="cart", reason="X", message="m")["status"] == 201
    assert len(server.events) == 1


def test_a_server_that_is_away(server, synced):
    server.stop()
    trouble = synced.next(told="trouble", kind="pod")
    assert "cannot connect to the API server at 127.0.0.1" in trouble["reason"] and "Connection refused" in trouble["reason"]
    answer = synced.ask("get_pod", namespace="shop", name="cart")
    assert answer["outcome"] == "failed" and "Connection refused" in answer["error"]
    server.start()
    synced.next(told="well", kind="pod")
    change_is_seen(server, synced)
    assert synced.ask("get_pod", namespace="shop", name="cart")["outcome"] == "done"
    assert synced.statistics()["pod_lists"] == 1
    warnings = [line for line in synced.errors if "cannot watch pods" in line]
    assert 1 <= len(warnings) <= 3, "the same thing is not said again and again"


def test_requests_wait_for_a_server_that_is_away(server, start):
    """One connection is tried at a time, not one for each request, and when the server is back all of them go at once."""
    pods = [server.put_pod("shop", f"pod-{number}") for number in range(50)]
    tool = start(backoff=300)
    tool.synced()
    server.stop()
    numbers = [tool.start("annotate", namespace="shop", name=pod["metadata"]["name"], uid=pod["metadata"]["uid"], key="k", value="v")
               for pod in pods]
    tool.next(told="trouble", kind="pod")
    time.sleep(1)
    assert tool.statistics()["connections"] <= 2 + 16 + 15
    server.start()
    assert sorted(tool.next(outcome="done")["answer"] for _ in numbers) == numbers


def test_no_busy_loop(server, start):
    """A server that refuses everything at once is asked a few times, with growing pauses."""
    server.fail(".", 403, times=10**6)
    tool = start(backoff=100)
    tool.next(told="trouble", kind="pod")
    time.sleep(2)
    assert len(server.requests) <= 2 * 7, server.requests
    server.faults.clear()
    tool.synced()


def test_watches_that_end_as_soon_as_they_begin(server, synced):
    before = len(server.requests)
    end = time.monotonic() + 2
    while time.monotonic() < end:
        server.order_watchers("end")
        time.sleep(0.01)
    assert len(server.requests) - before <= 2 * 8, server.requests[before:]
    change_is_seen(server, synced)


def test_no_rights(server, start):
    server.put_pod("shop", "cart")
    server.forbidden.append("GET /api/v1/pods")
    tool = start()
    trouble = tool.next(told="trouble", kind="pod")
    assert "403" in trouble["reason"] and "forbidden" in trouble["reason"]
    assert "trouble" not in tool.told("namespace")
    server.forbidden.clear()
    tool.next(told="list_finished", kind="pod")
    server.forbidden.append("PATCH")
    answer = tool.ask("annotate", namespace="shop", name="cart", uid="x", key="k", value="v")
    assert answer["outcome"] == "failed" and "403" in answer["error"]
    assert tool.statistics()["requests"]["refused"] == 1
