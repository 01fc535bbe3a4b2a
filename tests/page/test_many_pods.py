"""The status page of a node with 250 pods, watched from the API server."""
import tempfile

import pytest
from selenium.webdriver.common.by import By

from tests.agent.many import ManyPods
from tests.agent.node import eventually

from .browser import chromium

COUNT = 250


@pytest.fixture(scope="module")
def node():
    folder = tempfile.TemporaryDirectory(prefix="node-")
    node = ManyPods(folder.name, COUNT, settings=["listen.admin=127.0.0.1:15000", "log.level=info"])
    node.start()
    node.connect()
    node.flip(True, watch=False)
    yield node
    node.close()
    folder.cleanup()


def test_250_pods(node, tmp_path):
    with chromium(node, tmp_path) as page:
        eventually(lambda: len(page.names()) == COUNT, 20)
        assert page.text("#shown") == "250 of 250 pods" and page.show("enabled") == COUNT
        assert page.names()[:3] == ["shop/pod-1", "shop/pod-2", "shop/pod-3"] and page.names()[-1] == "shop/pod-250"
        page.screenshot("status-page-250-pods.png")
        # One line each, and one pod is found among them at once.
        heights = {round(row.rect["height"]) for row in page.all(By.CSS_SELECTOR, "tr.pod")[:40]}
        assert max(heights) < 40, heights
        page.search("pod-177")
        assert page.names() == ["shop/pod-177"]
        page.search("")
        # What a poll takes of the browser's time, all rows being the same: nothing that a person would feel.
        assert page.driver.execute_script("const from = performance.now(); showPods(); return performance.now() - from") < 250
        # The heads of the columns stay in sight.
        page.driver.execute_script("scrollTo(0, document.body.scrollHeight / 2)")
        assert page.driver.execute_script("return document.querySelector('#columns th').getBoundingClientRect().top") == 0
