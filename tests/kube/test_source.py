"""What the Kubernetes source tells its listener, and how it writes, when the API server does what it should."""
import pytest


def test_a_list_then_changes(server, start):
    server.put_namespace("shop", labels={"istio.io/dataplane-mode": "ambient"})
    pod = server.put_pod("shop", "cart", annotations={"x": "y"})
    server.put_pod("shop", "elsewhere", node="b")
    tool = start()
    tool.synced()
    assert tool.told("pod") == ["list_started", "put", "list_finished"]
    assert tool.told("namespace") == ["list_started", "put", "list_finished"]
    first = next(line for line in tool.lines if line["told"] == "put" and line["kind"] == "pod")
    assert first["metadata"] == pod["metadata"] and first["has_spec"]

    server.put_pod("shop", "second")
    assert tool.put("pod", "second")["metadata"]["namespace"] == "shop"
    server.put_namespace("shop", labels={})
    assert tool.put("namespace", "shop")["has_spec"] is False, "namespaces are metadata only"
    server.delete_pod("shop", "cart")
    assert tool.next(told="gone", kind="pod")["metadata"]["uid"] == pod["metadata"]["uid"]
    server.delete_namespace("shop")
    assert tool.next(told="gone", kind="namespace")["metadata"]["name"] == "shop"
    assert not [request for request in server.requests if "limit=" in request[1]], "a streaming list needs no pages"


def test_an_annotation(server, start):
    pod = server.put_pod("shop", "cart", annotations={"kept": "as it is"})
    tool = start()
    tool.synced()
    change = {"namespace": "shop", "name": "cart", "uid": pod["metadata"]["uid"], "key": "ambient.istio.io/redirection"}
    answer = tool.ask("annotate", value="enabled", **change)
    assert answer["outcome"] == "done" and answer["error"] == ""
    assert answer["object"]["metadata"]["annotations"] == {"kept": "as it is", "ambient.istio.io/redirection": "enabled"}
    assert server.pod_annotation("shop", "cart") == "enabled"
    assert tool.ask("annotate", value=None, **change)["outcome"] == "done"
    assert server.get("pods", "shop", "cart")["metadata"]["annotations"] == {"kept": "as it is"}


@pytest.mark.parametrize("streaming", [True, False])
def test_an_object_that_cannot_be_taken_in_is_listed_again(server, start, streaming):
    """For want of memory: a list without it must not come to its end, it would be taken for gone."""
    server.streaming_lists = streaming
    server.put_namespace("shop")
    server.put_pod("shop", "cart")
    server.put_pod("shop", "large", labels={"too-much": ""})
    tool = start()
    assert "cannot take in all pods" in tool.next(told="trouble", kind="pod")["reason"]
    tool.next(told="list_started", kind="pod")
    assert "list_finished" not in tool.told("pod")
    server.put_pod("shop", "large")
    tool.next(told="list_finished", kind="pod")
    # As a change.
    server.put_pod("shop", "cart", labels={"too-much": ""})
    again = tool.next(told="list_started", kind="pod")
    assert "gone" not in [line.get("told") for line in again["before"]]
    server.put_pod("shop", "cart")
    tool.next(told="list_finished", kind="pod")


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("word", ["list_started", "put", "gone", "list_finished", "trouble", "well"])
def test_it_may_be_freed_by_the_listener(server, start, streaming, word):
    """From inside of each of the listener's functions; the sanitizers tell."""
    server.streaming_lists = streaming
    for number in range(3):
        server.put_pod("shop", f"pod-{number}")
    server.put_namespace("shop")
    if word in ("trouble", "well"):
        server.fail("GET .*/pods", 500)
    tool = start(stop_at=word)
    if word == "gone":
        tool.synced()
        server.delete_pod("shop", "pod-1")
    line = tool.next(told=word)
    assert tool.process.wait(timeout=10) == 0 and tool.arrived.get() is None, line


def test_pages_where_the_server_has_no_streaming_lists(server, start):
    server.streaming_lists = False
    server.pages_from_cache = True
    for number in range(25):
        server.put_pod("shop", f"pod-{number:02}")
    server.put_namespace("shop")
    tool = start(page=10)
    tool.synced()
    assert tool.told("pod") == ["list_started", *["put"] * 25, "list_finished"]
    pages = [path for _, path, status in server.requests if "/pods?limit=10" in path and status == 200]
    assert len(pages) == 3 and "resourceVersion=0" in pages[0] and "continue=" in pages[2]
    server.put_pod("shop", "later")
    tool.put("pod", "later")
    assert tool.statistics()["pod_lists"] == 1


def test_pages_where_etcd_is_too_old_for_streaming_lists(server, start):
    """kube-apiserver 1.34 over etcd 3.4.23 (seen on a real node) accepts the request, and ends it by an error event."""
    server.etcd_is_old = True
    server.put_pod("shop", "cart")
    server.put_namespace("shop")
    tool = start()
    tool.synced()
    assert tool.told("pod")[-3:] == ["list_started", "put", "list_finished"]
    assert tool.statistics()["watch_restarts"] == 0
    server.put_pod("shop", "later")
    tool.put("pod", "later")


def test_a_whole_list_in_one_piece(server, start):
    """A server that answers resourceVersion=0 from its cache, whatever the limit, and sends all of it as one chunk."""
    server.streaming_lists = False
    for number in range(500):
        server.put_pod("shop", f"pod-{number:03}", annotations={"long": "x" * 5000, "odd": '{"items":[{"a":"]}\\""}]}'})
    tool = start(page=10)
    tool.synced()
    assert tool.told("pod").count("put") == 500
    assert all(line["metadata"]["annotations"]["odd"] == '{"items":[{"a":"]}\\""}]}' for line in tool.lines
               if line["told"] == "put")


def test_a_thousand_pods(server, start):
    for number in range(1000):
        server.put_pod("shop", f"pod-{number}")
    tool = start()
    tool.synced()
    assert tool.told("pod").count("put") == 1000
    for number in range(1000):
        server.delete_pod("shop", f"pod-{number}")
    for _ in range(1000):
        tool.next(told="gone")


def test_many_annotations_share_a_few_connections(server, start):
    pods = [server.put_pod("shop", f"pod-{number}") for number in range(250)]
    tool = start(idle=300)
    tool.synced()
    numbers = [tool.start("annotate", namespace="shop", name=pod["metadata"]["name"], uid=pod["metadata"]["uid"],
                          key="ambient.istio.io/redirection", value="enabled") for pod in pods]
    answers = [tool.next(outcome="done")["answer"] for _ in numbers]
    assert sorted(answers) == numbers
    assert all(server.pod_annotation("shop", f"pod-{number}") == "enabled" for number in range(250))
    assert server.connections_peak <= 16
    statistics = tool.statistics()
    assert statistics["requests"] == {"success": 250, "refused": 0, "retried": 0, "failed": 0}
    assert server.handshakes == statistics["connections"] <= 16 and server.resumed >= 10
    # The two watches stay, the others close when they are idle.
    server.wait(lambda: len(server.connections) == 2)
    assert tool.statistics()["open_connections"] == 2


def test_the_server_ends_watches_and_they_go_on(server, start):
    server.put_pod("shop", "cart")
    tool = start(server_seconds=2)
    tool.synced()
    server.wait(lambda: sum("/pods?watch=true" in path for _, path, _ in server.requests) >= 2)
    server.put_pod("shop", "later")
    tool.put("pod", "later")
    statistics = tool.statistics()
    assert statistics["pod_lists"] == 1 and statistics["watch_restarts"] == 0
    assert "trouble" not in tool.told("pod")


def test_a_pod_is_read(server, start):
    pod = server.put_pod("shop", "cart", node="b")
    tool = start()
    answer = tool.ask("get_pod", namespace="shop", name="cart")
    assert answer["outcome"] == "done" and answer["object"]["metadata"] == pod["metadata"]
    answer = tool.ask("get_pod", namespace="shop", name="nobody")
    assert answer["outcome"] == "gone" and answer["object"] is None
    assert tool.ask("get_pod", namespace="a/../b?c", name="x%y")["outcome"] == "gone", "names are escaped"


def test_an_annotation_for_a_pod_that_is_another_now(server, start):
    server.put_pod("shop", "cart")
    tool = start()
    for status in 409, 422:
        server.wrong_uid_status = status
        answer = tool.ask("annotate", namespace="shop", name="cart", uid="of-before", key="ambient.istio.io/redirection", value="x")
        assert answer["outcome"] == "gone"
    answer = tool.ask("annotate", namespace="shop", name="nobody", uid="x", key="ambient.istio.io/redirection", value="x")
    assert answer["outcome"] == "gone"
    assert server.pod_annotation("shop", "cart") is None


def test_an_annotation_that_meets_another_change_is_not_taken_for_gone(server, start):
    pod = server.put_pod("shop", "cart")
    server.patch_conflicts = 1
    tool = start()
    change = {"namespace": "shop", "name": "cart", "uid": pod["metadata"]["uid"], "key": "ambient.istio.io/redirection", "value": "x"}
    answer = tool.ask("annotate", **change)
    assert answer["outcome"] == "failed" and "has been modified" in answer["error"]
    assert tool.ask("annotate", **change)["outcome"] == "done"


def test_a_request_that_is_cancelled(server, start):
    server.put_pod("shop", "cart")
    tool = start()
    tool.synced()
    server.fail("GET .*/pods/cart", "hang")
    tool.start("get_pod", namespace="shop", name="cart")
    server.wait(lambda: any("/pods/cart" in path for _, path, _ in server.requests))
    tool.start("cancel_all")
    answer = tool.ask("get_pod", namespace="shop", name="cart")
    assert answer["outcome"] == "done" and not [line for line in answer["before"] if "answer" in line]


def test_single_requests(server, start):
    server.put_daemon_set("istio-system", "istio-cni-node")
    server.put_node("a", taints=[{"key": "other", "effect": "NoSchedule"}, {"key": "ours", "effect": "NoSchedule"},
                                 {"key": "ours", "effect": "NoExecute", "value": "x"}, {"key": "last", "effect": "NoSchedule"}])
    tool = start(node=None)
    answer = tool.ask("get_daemon_set", namespace="istio-system", name="istio-cni-node")
    assert answer["status"] == 200 and answer["object"]["kind"] == "DaemonSet"
    answer = tool.ask("get_daemon_set", namespace="istio-system", name="gone")
    assert answer["status"] == 404 and 'daemonsets "gone" not found' in answer["error"]
    assert tool.ask("get_node", name="a")["object"]["metadata"]["name"] == "a"

    answer = tool.ask("remove_taint", name="a", key="ours")
    assert answer["status"] == 200
    assert [taint["key"] for taint in server.get("nodes", None, "a")["spec"]["taints"]] == ["other", "last"]
    patches = len(server.patches)
    assert tool.ask("remove_taint", name="a", key="ours")["status"] == 200
    assert len(server.patches) == patches, "nothing to remove, nothing written"

    answer = tool.ask("event", namespace="shop", name="cart", uid="u-1", reason="MeshEnrolmentFailed", message="é" * 1000)
    assert answer["status"] == 201
    event, = server.events
    assert event["involvedObject"] == {"apiVersion": "v1", "kind": "Pod", "namespace": "shop", "name": "cart", "uid": "u-1"}
    assert event["message"] == "é" * 512 and event["type"] == "Warning"
    assert tool.ask("event", name="a", reason="Ready", message="the node is ready")["status"] == 201


def test_a_taint_list_that_changes_meanwhile(server, start):
    server.put_node("a", taints=[{"key": "ours", "effect": "NoSchedule"}])
    tool = start(node=None)
    server.delay = 0.3
    number = tool.start("remove_taint", name="a", key="ours")
    server.wait(lambda: any("/nodes/a" in path for _, path, _ in server.requests))
    server.put_node("a", taints=[{"key": "new", "effect": "NoSchedule"}, {"key": "ours", "effect": "NoSchedule"}])
    assert tool.next(answer=number)["status"] == 200
    assert [taint["key"] for taint in server.get("nodes", None, "a")["spec"]["taints"]] == ["new"]
    assert len(server.patches) == 2
