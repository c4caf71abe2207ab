// The run list, live: rows follow their runs in place, and what is newer is counted and offered, never pushed in.
// Runs tell of news by the page's realtime connection; every few seconds the rows are asked for anyway.

import { connectionFor } from "./connection.js";

const ASK_MS = 10_000;
const SOON_MS = 700;
const STORED = "django-workflow.runs.live";

class LiveList {
  #bar;
  #timer;
  #subscriptions = new Map();
  #state = "";
  #asking = null;

  constructor(bar) {
    this.#bar = bar;
    this.#toggle.addEventListener("click", () => this.#switch(!this.#isOn));
    document.addEventListener("visibilitychange", () => this.#isOn && this.#visibilityChanged());
    bar.hidden = false;
    this.#switch(localStorage.getItem(STORED) === "on");
  }

  get #toggle() {
    return this.#part("toggle");
  }

  get #isOn() {
    return this.#toggle.getAttribute("aria-pressed") === "true";
  }

  #part(name) {
    return this.#bar.querySelector(`[data-wfa=${name}]`);
  }

  #switch(on) {
    this.#toggle.setAttribute("aria-pressed", String(on));
    localStorage.setItem(STORED, on ? "on" : "off");
    if (on) this.#start();
    else this.#stop();
  }

  #start() {
    this.#say("polling");
    this.#follow();
    this.#ask();
  }

  #stop() {
    clearTimeout(this.#timer);
    for (const subscription of this.#subscriptions.values()) subscription.close();
    this.#subscriptions.clear();
    this.#say(this.#isOn ? "paused" : "");
  }

  #visibilityChanged() {
    if (document.hidden) this.#stop();
    else this.#start();
  }

  // Runs that are not over say when something happens; the rows are then fetched.
  #follow() {
    const { source } = this.#bar.dataset;
    const wanted = new Set(rows().map(({ dataset }) => dataset.channel).filter(Boolean));
    for (const [channel, subscription] of this.#subscriptions) {
      if (wanted.has(channel)) continue;
      subscription.close();
      this.#subscriptions.delete(channel);
    }
    if (!source) return;
    const cursor = `${Date.parse(this.#bar.dataset.since)}-0`;
    for (const channel of wanted) {
      if (this.#subscriptions.has(channel)) continue;
      const listener = {
        cursor,
        onMessage: () => this.#ask(SOON_MS),
        onState: (state) => this.#say({ connected: "live", reconnecting: "reconnecting", offline: "reconnecting" }[state] ?? "polling"),
      };
      this.#subscriptions.set(channel, connectionFor(source).subscribe(channel, listener));
    }
  }

  #say(state) {
    if (state === this.#state) return;
    this.#state = state;
    const indicator = this.#part("indicator");
    indicator.textContent = this.#bar.dataset[state] ?? "";
    indicator.dataset.state = state;
  }

  #ask(ms = 0) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#fetch(), ms);
  }

  async #fetch() {
    if (this.#asking || !this.#isOn || document.hidden) return;
    const query = new URLSearchParams(location.search);
    query.set("rows", rows().map(({ dataset }) => dataset.run).join(","));
    query.set("since", this.#bar.dataset.since);
    try {
      this.#asking = fetch(`${this.#bar.dataset.url}?${query}`, { credentials: "same-origin", cache: "no-store" });
      const response = await this.#asking;
      if (!response.ok || response.redirected) throw new Error(response.status);
      this.#take(new DOMParser().parseFromString(await response.text(), "text/html"));
      if (this.#state === "reconnecting" && !this.#subscriptions.size) this.#say("polling");
    } catch {
      this.#say("reconnecting");
    }
    this.#asking = null;
    this.#ask(ASK_MS);
    this.#follow();
  }

  // Cell by cell, so that nothing moves under the pointer and a ticked box stays ticked.
  #take(fresh) {
    const news = new Map([...fresh.querySelectorAll("[data-run]")].map((mark) => [mark.dataset.run, mark.closest("tr")]));
    for (const mark of rows()) {
      const row = mark.closest("tr");
      const other = news.get(mark.dataset.run);
      if (!other) row.classList.add("wfa-gone");
      else if (!row.contains(document.activeElement) || document.activeElement.matches("[type=checkbox]")) replaceCells(row, other);
    }
    const bar = document.querySelector("[data-wfa=engine-bar]");
    bar?.replaceChildren(...fresh.querySelector("[data-wfa=engine-bar]").childNodes);
    const number = Number(fresh.body.dataset.newer);
    const banner = this.#part("new");
    const { one, many } = this.#bar.dataset;
    const text = number === 1 ? one : many.replace("{count}", number);
    if (number && this.#part("new-text").textContent !== text) this.#part("new-text").textContent = text;
    banner.hidden = !number;
    banner.href = location.href;
  }
}

function rows() {
  return [...document.querySelectorAll("#result_list [data-run]")];
}

function replaceCells(row, other) {
  const cells = [...other.children];
  [...row.children].forEach((cell, index) => {
    if (!cell.classList.contains("action-checkbox") && cell.innerHTML !== cells[index]?.innerHTML) {
      cell.replaceChildren(...cells[index].childNodes);
    }
  });
}

const bar = document.querySelector("[data-wfa=live]");
if (bar) new LiveList(bar);
