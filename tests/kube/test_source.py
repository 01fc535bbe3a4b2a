"""What the Kubernetes source tells its listener, and how it writes, when the API server does what it should."""


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
