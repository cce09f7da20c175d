"""A visit to the page, as a user makes it with a keyboard."""

from typing import Any

from assets.browser import Tab

TEXTS = "[...document.querySelectorAll('.reply')].map(one => one.querySelector('.state').textContent)"
DONE = f"!document.getElementById('ask').disabled && {TEXTS}.join(' | ')"
VISIBLE_LINES = "[...document.querySelectorAll('[role=alert]')].map(one => one.innerText).filter(Boolean)"


def visit(tab: Tab, url: str) -> None:
    tab.events.clear()
    tab.call("Page.navigate", url=url)
    tab.until("document.getElementById('page')?.hidden === false && !document.getElementById('old')")
    tab.until("document.title != 'Thinkwright' || document.getElementById('error').innerText")


def ask(tab: Tab, question: str) -> str:
    """Ask as a user does, and return the states of the replies at their end."""
    tab.value("document.getElementById('question').focus()")
    tab.type(question)
    tab.press("Enter")
    return str(tab.until(DONE))


def complaints(tab: Tab) -> list[Any]:
    """What the browser found wrong: violations of the policy, errors of scripts."""
    tab.value("1")
    return [one["params"] for one in tab.events if one["method"] in ("Log.entryAdded", "Runtime.exceptionThrown")]
