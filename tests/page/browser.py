"""A real Chromium on the status page, and what a person sees in it."""
import contextlib
import os
import shutil

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.agent.node import REPOSITORY

PAGE = "http://127.0.0.1:15000/"
IMAGES = REPOSITORY / "docs/images"

# The least ratio of contrast of any text that is shown, with the text: WCAG 2.1's relative luminance.
CONTRAST = """
const luminance = (c) => {
  const part = (v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  return 0.2126 * part(c[0]) + 0.7152 * part(c[1]) + 0.0722 * part(c[2]);
};
const parse = (text) => text.match(/[\\d.]+/g).map(Number);
const ground = (element) => {
  for (; element; element = element.parentElement) {
    const colour = parse(getComputedStyle(element).backgroundColor);
    if (colour.length === 3 || colour[3] === 1) return colour;
  }
  return [255, 255, 255];
};
let least = [99, ""];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  if (!walker.currentNode.textContent.trim() || !element.checkVisibility() || element.closest("script, .hidden, option")) continue;
  const a = luminance(parse(getComputedStyle(element).color)), b = luminance(ground(element));
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (ratio < least[0]) least = [ratio, walker.currentNode.textContent];
}
return least;
"""


class Page:
    def __init__(self, driver):
        self.driver = driver
        self.by = driver.find_element
        self.all = driver.find_elements

    def load(self):
        self.driver.get("about:blank")
        self.driver.get(PAGE)

    def text(self, selector):
        """In one step: the page may change between two."""
        return self.driver.execute_script("return document.querySelector(arguments[0])?.innerText.trim() ?? ''", selector)

    def names(self):
        return self.driver.execute_script("return [...document.querySelectorAll('tr.pod')].map((row) => row.dataset.pod)")

    def row(self, pod):
        return self.text(f'tr[data-pod="{pod}"]')

    def button(self, pod):
        return self.by(By.CSS_SELECTOR, f'button[data-pod="{pod}"]')

    def show(self, name):
        """One of the filters; returns how many it says it has."""
        chip = self.by(By.CSS_SELECTOR, f'button[data-show="{name}"]')
        chip.click()
        assert chip.get_attribute("aria-pressed") == "true"
        return int(chip.find_element(By.TAG_NAME, "b").text)

    def search(self, words):
        box = self.by(By.ID, "search")
        box.send_keys(Keys.CONTROL, "a")
        box.send_keys(words or Keys.DELETE)

    def column(self, name):
        return next(cell for cell in self.all(By.CSS_SELECTOR, "#columns th") if cell.text.split()[0] == name)

    def focused(self):
        return self.driver.switch_to.active_element

    def scheme(self, name):
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": name}]})

    def size(self, width, height):
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": False})

    def contrast(self):
        return self.driver.execute_script(CONTRAST)

    def screenshot(self, name):
        """For docs/images, with AMBIENT_SCREENSHOTS; a version that nobody can have is not shown."""
        if os.environ.get("AMBIENT_SCREENSHOTS"):
            assert "dirty" not in self.text("#about"), "commit first, or make VERSION=..."
            self.driver.execute_script("scrollTo(0, 0)")
            self.driver.save_screenshot(str(IMAGES / name))


@contextlib.contextmanager
def chromium(node, profile):
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
                     f"--user-data-dir={profile}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.chrome.service.Service(shutil.which("chromedriver"))
    with node.host:
        driver = webdriver.Chrome(options=options, service=service)
        try:
            page = Page(driver)
            page.size(1280, 1100)
            page.scheme("light")
            page.load()
            yield page
            complaints = driver.get_log("browser")
        finally:
            driver.quit()
    assert not complaints, complaints
