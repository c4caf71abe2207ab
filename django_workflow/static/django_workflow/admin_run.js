// The page of a run: parts that follow the run, the values' search and copy, and zooming by dragging over the axis.
// Without this script the page is whole, as of its loading.

import { connectionFor, Timers } from "./connection.js";

const AT_MOST_EVERY_MS = 1_000;
const ANYWAY_MS = 15_000;
const FOCUSABLE = "a, button, summary, pre";
const STATES = { connected: "live", polling: "polling", reconnecting: "reconnecting", offline: "reconnecting" };

class LiveRun {
  #bar;
  #timers = new Timers();
  #subscription = null;
  #cursor;
  #fetching = false;
  #loadedAt = new Date();

  constructor(bar) {
    this.#bar = bar;
    this.#cursor = bar.dataset.cursor || "0-0";
    this.#toggle.addEventListener("click", () => (this.#subscription ? this.#pause() : this.#follow()));
    document.addEventListener("visibilitychange", () => document.hidden || this.#soon(0));
    bar.hidden = false;
    this.#follow();
  }

  get #toggle() {
    return this.#bar.querySelector("[data-wfa=toggle]");
  }

  #follow() {
    const { source, run } = this.#bar.dataset;
    const listener = {
      cursor: this.#cursor,
      onMessage: ({ id }) => {
        this.#cursor = id;
        this.#soon();
      },
      onGap: () => this.#soon(),
      onState: (state) => this.#say(STATES[state] ?? "reconnecting"),
    };
    const nothing = { close() {} };
    this.#subscription = source ? connectionFor(source).subscribe(run, listener) : nothing;
    if (!source) this.#say("polling");
    this.#toggle.textContent = this.#toggle.dataset.pause;
    this.#soon(ANYWAY_MS);
  }

  #pause() {
    this.#subscription.close();
    this.#subscription = null;
    this.#timers.clear();
    this.#say("paused");
    this.#toggle.textContent = this.#toggle.dataset.go;
  }

  #say(state, text = this.#bar.dataset[state]) {
    const indicator = this.#bar.querySelector("[data-wfa=indicator]");
    if (indicator.textContent !== text) indicator.textContent = text;
    indicator.dataset.state = state;
  }

  #soon(ms = AT_MOST_EVERY_MS) {
    if (!this.#subscription) return;
    if (ms < ANYWAY_MS) {
      if (this.#timers.soon) return;
      this.#timers.set("soon", ms, () => this.#fetch());
    }
    this.#timers.set("anyway", ANYWAY_MS, () => this.#fetch());
  }

  async #fetch() {
    if (this.#fetching || document.hidden) return;
    this.#fetching = true;
    try {
      const response = await fetch(location.href, { credentials: "same-origin", cache: "no-store" });
      if (response.status === 404 || (response.redirected && !response.url.includes("login"))) {
        this.#gone();
        return;
      }
      if (!response.ok || response.redirected) throw new Error(response.status);
      this.#take(new DOMParser().parseFromString(await response.text(), "text/html"));
      this.#loadedAt = new Date();
      const { state } = this.#bar.querySelector("[data-wfa=indicator]").dataset;
      if (state === "stale") this.#say("polling");
    } catch {
      const time = this.#loadedAt.toLocaleTimeString(document.documentElement.lang || undefined);
      this.#say("stale", this.#bar.dataset.stale.replace("{time}", time));
    } finally {
      this.#fetching = false;
      this.#soon(ANYWAY_MS);
    }
  }

  #gone() {
    this.#pause();
    const { gone, list, listText } = this.#bar.dataset;
    this.#say("reconnecting", gone);
    const link = Object.assign(document.createElement("a"), { href: list, textContent: listText });
    this.#toggle.replaceWith(link);
  }

  // Part by part. What is open stays open, and what has the focus keeps it; where somebody types or marks text, the part
  // is left alone.
  #take(fresh) {
    for (const part of document.querySelectorAll("[data-part]")) {
      const other = fresh.querySelector(`[data-part="${part.dataset.part}"]`);
      const active = document.activeElement;
      const isBusy = (part.contains(active) && active.matches("input")) || !getSelection().isCollapsed;
      if (!other || isBusy || other.innerHTML === part.dataset.html) continue;
      part.dataset.html = other.innerHTML;
      const open = [...part.querySelectorAll("details")].map((each) => each.open);
      const focused = [...part.querySelectorAll(FOCUSABLE)].indexOf(active);
      part.replaceChildren(...other.childNodes);
      if (focused >= 0) part.querySelectorAll(FOCUSABLE)[focused]?.focus({ preventScroll: true });
      [...part.querySelectorAll("details")].forEach((each, index) => (each.open ||= open[index]));
      prepare(part);
    }
    if (!fresh.querySelector("[data-wfa=live]")) {
      this.#pause();
      this.#bar.hidden = true;
      document.querySelector(".wfa-live")?.remove();
    }
  }
}

class Value {
  #node;
  #place = -1;

  constructor(node) {
    this.#node = node;
    const copy = node.querySelector("[data-copy-from]");
    if (navigator.clipboard) {
      copy.hidden = false;
      copy.addEventListener("click", () => this.#copy(copy));
    }
    if (!globalThis.Highlight) return;
    const find = node.querySelector(".wfa-find");
    const input = find.querySelector("input");
    find.hidden = false;
    input.addEventListener("input", () => this.#find(input.value, 0));
    input.addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      this.#find(input.value, event.shiftKey ? -1 : 1);
    });
  }

  async #copy(button) {
    const text = button.textContent;
    await navigator.clipboard.writeText(this.#node.querySelector("pre").textContent);
    button.textContent = button.dataset.done;
    setTimeout(() => (button.textContent = text), 2000);
  }

  // The text stays text: found places are painted by the browser.
  #find(word, step) {
    const pre = this.#node.querySelector("pre");
    const text = pre.textContent.toLowerCase();
    const wanted = word.toLowerCase();
    const places = [];
    for (let at = wanted ? text.indexOf(wanted) : -1; at >= 0; at = text.indexOf(wanted, at + wanted.length)) places.push(at);
    CSS.highlights.delete("wfa-found");
    this.#place = places.length && step ? (this.#place + step + places.length) % places.length : 0;
    const { found, none } = this.#node.dataset;
    const said = places.length ? found.replace("{number}", this.#place + 1).replace("{count}", places.length) : none;
    this.#node.querySelector(".wfa-find [role=status]").textContent = wanted ? said : "";
    if (!places.length) return;
    const details = pre.closest("details");
    if (details) details.open = true;
    const ranges = places.slice(0, 1000).map((at) => rangeOf(pre, at, wanted.length));
    CSS.highlights.set("wfa-found", new Highlight(...ranges));
    const box = rangeOf(pre, places[this.#place], wanted.length).getBoundingClientRect();
    pre.scrollTop += box.top - pre.getBoundingClientRect().top - pre.clientHeight / 3;
  }
}

function rangeOf(pre, at, length) {
  const range = new Range();
  range.setStart(pre.firstChild, at);
  range.setEnd(pre.firstChild, at + length);
  return range;
}

// Dragging over the axis looks at that part. Buttons do the same for the keyboard.
class Brush {
  constructor(timeline) {
    const axis = timeline.querySelector("[data-wfa=axis]");
    if (!axis) return;
    this.axis = axis;
    this.points = JSON.parse(timeline.dataset.points);
    axis.addEventListener("pointerdown", (event) => this.#begin(event));
    axis.addEventListener("pointermove", (event) => this.from !== undefined && this.#show(event));
    axis.addEventListener("pointerup", (event) => this.from !== undefined && this.#end(event));
    axis.addEventListener("pointercancel", () => this.#clear());
  }

  #share({ clientX }) {
    const { left, width } = this.axis.getBoundingClientRect();
    return Math.min(Math.max(((clientX - left) / width) * 100, 0), 100);
  }

  #begin(event) {
    this.axis.setPointerCapture(event.pointerId);
    this.from = this.#share(event);
  }

  #show(event) {
    const to = this.#share(event);
    const brush = this.axis.querySelector("[data-wfa=brush]");
    brush.setAttribute("x", `${Math.min(this.from, to)}%`);
    brush.setAttribute("width", `${Math.abs(to - this.from)}%`);
  }

  #clear() {
    delete this.from;
    this.axis.querySelector("[data-wfa=brush]").setAttribute("width", "0");
  }

  #end(event) {
    const [first, last] = [this.from, this.#share(event)].sort((a, b) => a - b);
    this.#clear();
    if (last - first < 1) return;
    const url = new URL(location.href);
    const before = Number(url.searchParams.get("from") ?? 0);
    url.searchParams.set("view", "timeline");
    url.searchParams.set("from", Math.floor(before + this.#milliseconds(first)));
    url.searchParams.set("to", Math.ceil(before + this.#milliseconds(last)) + 1);
    location.assign(url);
  }

  #milliseconds(share) {
    const after = Math.max(this.points.findIndex(([, x]) => x >= share), 1);
    const [[fromMs, fromX], [toMs, toX]] = [this.points[after - 1], this.points[after]];
    return fromMs + (toX > fromX ? (share - fromX) / (toX - fromX) : 0) * (toMs - fromMs);
  }
}

function prepare(root) {
  for (const node of root.querySelectorAll("[data-wfa=value]")) new Value(node);
  for (const node of root.querySelectorAll("[data-wfa=timeline]")) new Brush(node);
}

prepare(document);
const bar = document.querySelector("[data-wfa=live]");
if (bar) new LiveRun(bar);
