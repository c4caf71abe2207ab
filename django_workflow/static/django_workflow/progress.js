// <workflow-progress> keeps the HTML that the server rendered up to date; <workflow-trigger> posts its form and shows
// the run. Data becomes text and attributes alone.

import { Timers } from "./connection.js";
import { EMPTY, createWorkflowStore, post, stepStatus } from "./store.js";

// The assets tag brings the words in the reader's language; an element may have its own in `labels-…`.
const LABELS = JSON.parse(document.querySelector("script[data-labels]")?.dataset.labels ?? "{}");
const FINAL = ["success", "failed", "canceled", "forbidden", "gone"];
const STILL = [...FINAL, "waiting", "paused", "scheduled", "sleeping"];
const BUSY = ["running", "retrying", "waiting", "sleeping"];
const ANNOUNCE_MS = 2_000;
const RENEW_TOKEN_MS = 12 * 3_600_000;

const part = (root, name) => root.querySelector(`[data-wf="${name}"]`);

function fill(root, name, text, hide) {
  const element = part(root, name);
  if (element && element.textContent !== text) element.textContent = text;
  if (element && hide) element.hidden = !text;
}

export class WorkflowProgress extends HTMLElement {
  static observedAttributes = ["run"];

  #store = null;
  #status = "";
  #connection = "idle";
  #lost = new Date();
  #byPolls = false;
  #refreshing = null;
  #refreshAgain = null;
  #taking = false;
  #said = { text: "", at: 0 };
  #timers = new Timers();

  get runId() {
    return this.getAttribute("run");
  }
  get status() {
    return this.#status;
  }
  get isTriggering() {
    return this.#status === "starting";
  }
  static {
    for (const name of ["steps", "runStatus", "waitingState"]) {
      Object.defineProperty(this.prototype, name, { get() { return this.#store.getState()[name]; } });
    }
  }

  /** Start a run and show it: the answer is `{"workflowRunId", "token"?}`. */
  async trigger(payload = {}, url = this.getAttribute("trigger")) {
    this.say("starting");
    try {
      const { workflowRunId, token, response } = await post(url, payload);
      if (workflowRunId) this.show(workflowRunId, token);
      else location.assign(response.url);
      return workflowRunId;
    } catch (error) {
      this.say("refused", { error: error.message });
      throw error;
    }
  }

  show(runId, token) {
    if (token) this.setAttribute("token", token);
    else this.removeAttribute("token");
    this.setAttribute("run", runId);
  }

  continueWorkflow(data) {
    return this.#store.continueWorkflow(data);
  }

  disconnect() {
    this.#store?.disconnect();
    this.#timers.clear();
  }

  refresh() {
    if (this.#refreshing) {
      this.#refreshAgain ??= this.#refreshing.then(() => this.refresh((this.#refreshAgain = null)));
      return this.#refreshAgain;
    }
    this.#refreshing = this.#refresh().finally(() => (this.#refreshing = null));
    return this.#refreshing;
  }

  say(status, values) {
    this.#status = status;
    this.setAttribute("status", status);
    if (!part(this, "status")) {
      const line = document.createElement("p");
      line.className = "wf-status";
      line.dataset.wf = "status";
      this.append(line);
    }
    fill(this, "status", this.#label(status, values));
    this.#announce();
  }

  connectedCallback() {
    if (this.#store) {
      this.#follow();
      return;
    }
    this.addEventListener("submit", (event) => this.#answer(event));
    this.addEventListener("click", ({ target }) => target.closest("[data-wf=retry]") && this.#store.retry());
    this.#start();
  }

  disconnectedCallback() {
    queueMicrotask(() => this.isConnected || this.disconnect());
  }

  attributeChangedCallback(_name, before, after) {
    if (!this.#store || this.#taking || !this.isConnected || before === after) return;
    this.disconnect();
    this.#start(true);
  }

  #start(another) {
    this.#store = createWorkflowStore({
      src: this.getAttribute("src"),
      notifyUrl: this.getAttribute("notify"),
      token: this.getAttribute("token"),
    });
    this.#store.subscribe((message) => this.#changed(message));
    this.#status = this.getAttribute("status") ?? "";
    this.#byPolls = false;
    if (!this.runId) return;
    if (another || !part(this, "status")) {
      this.refresh().then((shown) => shown && this.#follow());
    } else {
      this.#read(this);
      this.#follow();
    }
  }

  #follow() {
    if (!this.runId || FINAL.includes(this.#status)) return;
    const token = this.getAttribute("token");
    this.#store.watch(this.runId, {
      cursor: this.getAttribute("cursor"),
      token,
      transport: this.#byPolls ? "poll" : this.getAttribute("transport") ?? "auto",
      onGap: () => this.refresh(),
      onRefused: () => this.#refused(),
    });
    if (token) this.#timers.set("renew", RENEW_TOKEN_MS, () => this.refresh());
  }

  // A socket may not know the user whom pages know.
  async #refused() {
    if (!(await this.refresh())) return;
    if (this.#byPolls) this.say("forbidden");
    this.#byPolls = true;
    this.#follow();
  }

  async #refresh() {
    const query = new URLSearchParams({
      view: this.getAttribute("view") ?? "",
      respond: Number(this.hasAttribute("respond")),
      "max-steps": this.getAttribute("max-steps") ?? "",
    });
    const url = `${this.getAttribute("src")}run/${encodeURIComponent(this.runId)}/?${query}`;
    const { status, response } = await load(url, this.getAttribute("token"));
    const fresh = response?.querySelector("workflow-progress");
    const word = { 403: "forbidden", 404: "gone" }[status];
    if (word) {
      this.disconnect();
      this.say(word);
    }
    if (status !== 200 || !fresh || !this.isConnected) return false;
    this.#take(fresh);
    return true;
  }

  #take(fresh) {
    const [own, others] = [part(this, "answers"), part(fresh, "answers")];
    const writing = own?.contains(document.activeElement) && own.dataset.event === others?.dataset.event;
    const another = this.runId !== fresh.getAttribute("run");
    this.#taking = true;
    for (const name of ["token", "respond"]) this.removeAttribute(name);
    for (const { name, value } of fresh.attributes) this.setAttribute(name, value);
    this.#taking = false;
    if (!writing) this.replaceChildren(...fresh.childNodes);
    this.#read(writing ? fresh : this);
    this.#store.setToken(this.getAttribute("token"));
    this.#render();
    if (another && this.#connection !== "idle") this.#follow();
    if (FINAL.includes(this.#status)) this.disconnect();
  }

  #read(root) {
    const status = this.getAttribute("status");
    const { event } = part(root, "answers")?.dataset ?? {};
    const { value, max } = part(root, "progress") ?? {};
    const state = {
      ...EMPTY,
      steps: [...root.querySelectorAll("[data-wf=steps] > *")].map(stepOf),
      runStatus: runStatusOf(status, part(root, "error")?.textContent),
      waits: event ? [{ eventId: event, message: part(root, "question")?.textContent, stepType: "Wait" }] : [],
      progress: max > 1 ? { done: value, total: max } : null,
      shown: status,
    };
    this.#store.load(state, this.getAttribute("cursor"), root !== this);
    this.#status = this.#store.getState().status;
    if (!this.#said.at) this.#said = { text: part(this, "status").textContent, at: Date.now() };
  }

  #changed(message) {
    if (message) {
      const { type, stepType } = message.data ?? {};
      this.#emit("update", message);
      if (/^step/.test(type)) this.#emit("step", message);
      if (type === "waitingForInput") this.#emit("waiting", message);
      // The form, and the end of a sleep, are not in the event.
      if (type === "waitingForInput" ? this.hasAttribute("respond") : /^Sleep/.test(stepType)) this.refresh();
      if (this.getAttribute("view") === "timeline") this.#timers.refresh ?? this.#timers.set("refresh", 500, () => this.refresh());
      if (type === "runFinish") this.#timers.set("finish", 0, () => this.#finish(message));
    } else {
      const { connection } = this.#store.getState();
      if (connection !== this.#connection) this.#emit("connection", { state: connection });
      if (connection === "connected" || connection === "polling") this.#lost = null;
      else this.#lost ??= new Date();
      this.#connection = connection;
    }
    if (!this.#timers.render) this.#timers.set("render", 0, () => this.#render());
  }

  #finish(message) {
    this.#render();
    if (this.#timers.refresh) this.refresh();
    this.disconnect();
    this.#emit("finish", message);
    const url = new URL(this.getAttribute("redirect-on-success") ?? "about:blank", location.href);
    if (this.#status === "success" && /^http/.test(url.protocol)) location.assign(url);
  }

  #render() {
    this.#timers.clear("render");
    const note = part(this, "connection");
    if (note) note.hidden = this.#connection !== "offline";
    fill(this, "connection-text", this.#label("offline", { time: this.#time(this.#lost) }));
    const state = this.#store.getState();
    const { steps, status, progress } = state;
    if (!state.news) return; // the HTML is right as it came
    this.#status = status;
    this.setAttribute("status", status);
    const busy = BUSY.map((word) => steps.find((step) => stepStatus(step) === word)).find(Boolean);
    const current = FINAL.includes(status) ? null : busy;
    fill(this, "status", this.#words(state, current));
    fill(this, "error", status === "failed" ? firstLine(state.runStatus.error) : "", true);
    const answers = part(this, "answers");
    if (answers?.dataset.event !== state.waitingState?.eventId) answers?.remove();
    const bar = part(this, "progress");
    if (bar) {
      const known = status === "success" ? { done: 1, total: 1 } : progress;
      bar.hidden = !known?.total && STILL.includes(status);
      if (known?.total) Object.assign(bar, { max: known.total, value: Math.min(known.done, known.total) });
      else bar.removeAttribute("value");
    }
    this.#renderSteps(steps, current);
    this.#announce();
  }

  #renderSteps(steps, current) {
    const list = part(this, "steps");
    const blank = part(this, "step")?.content.firstElementChild;
    if (!list || !blank) return;
    const rows = new Map([...list.children].map((row) => [row.dataset.step, row]));
    const shown = steps.slice(-(this.getAttribute("max-steps") ?? 100));
    let place = list.firstElementChild;
    for (const step of shown) {
      const key = String(step.stepId ?? `n${steps.indexOf(step)}`);
      const row = rows.get(key) ?? blank.cloneNode(true);
      const status = this.#stepStatus(step);
      rows.delete(key);
      Object.assign(row.dataset, { step: key, status });
      if (step === current) row.setAttribute("aria-current", "step");
      else row.removeAttribute("aria-current");
      fill(row, "name", step.stepName);
      fill(row, "state", this.#label(`step-${status}`));
      fill(row, "step-error", status === "failed" ? firstLine(step.error) : "", true);
      if (row === place) place = place.nextElementSibling;
      else list.insertBefore(row, place);
    }
    for (const row of rows.values()) row.remove();
    const before = (shown[0]?.stepId ?? 1) - 1;
    list.start = before + 1;
    fill(this, "earlier", before ? this.#label("earlier", { count: before }) : "", true);
  }

  // A run that is over has no open steps, though no event says so.
  #stepStatus(step) {
    const status = stepStatus(step);
    if (!FINAL.includes(this.#status) || FINAL.includes(status)) return status;
    return status === "retrying" ? this.#status : "canceled";
  }

  #words({ steps, waitingState, problem, status }, current) {
    const workflow = this.getAttribute("workflow");
    if (status === "failed") {
      const failed = steps.findLast((step) => this.#stepStatus(step) === "failed");
      return this.#label("failed", { name: failed?.stepName || workflow });
    }
    if (status === "retrying") {
      const { stepName, nextRetryAt, attempt, maxAttempts } = problem ?? steps.find((step) => step.willRetry);
      if (!nextRetryAt) return part(this, "status").textContent;
      const values = { name: stepName || workflow, time: this.#time(nextRetryAt), attempt: attempt + 1 };
      return this.#label(maxAttempts ? "retrying" : "retrying-uncounted", { ...values, attempts: maxAttempts });
    }
    if (status === "sleeping") return this.#label("sleeping", { time: this.#time(current.until) });
    if (status === "waiting" && (waitingState || current?.stepType === "Wait")) return this.#label("waiting");
    if (status !== "running" && status !== "waiting") return this.#label(status);
    if (current) {
      return this.#label("running", { number: current.stepId ?? steps.indexOf(current) + 1, name: current.stepName });
    }
    const done = steps.filter((step) => step.status === "completed").length;
    return done ? this.#label("between", { count: (steps[0].stepId ?? 1) - 1 + done }) : this.#label("working");
  }

  // For those who hear the page, not more often than they can listen.
  #announce() {
    const text = part(this, "status").textContent;
    const early = this.#said.at + ANNOUNCE_MS - Date.now();
    if (text === this.#said.text) return;
    if (early > 0 && !FINAL.includes(this.#status)) {
      if (!this.#timers.announce) this.#timers.set("announce", early, () => this.#announce());
      return;
    }
    this.#said = { text, at: Date.now() };
    const urgent = this.#status === "failed" || this.#status === "waiting";
    fill(this, "live", urgent ? "" : text);
    fill(this, "alert", urgent ? text : "");
  }

  async #answer(event) {
    const form = event.target;
    if (form.dataset.wf !== "answer") return;
    event.preventDefault();
    const body = new FormData(form, event.submitter);
    const enable = (on) => {
      for (const button of this.querySelectorAll("[data-wf=answer] button")) button.disabled = !on;
    };
    fill(form, "problem", "");
    enable(false);
    try {
      await post(form.action, body);
      fill(this, "live", this.#label("answer-sent"));
    } catch ({ status, message, fields = {} }) {
      for (const input of form.elements) input.ariaInvalid = input.name.replace(/^wf\d+-/, "") in fields;
      const error = Object.values(fields).flat().join(" ") || message;
      fill(form, "problem", this.#label(status === 409 ? "answer-taken" : "answer-failed", { error }));
      enable(status !== 409);
    }
  }

  #label(key, values = {}) {
    const text = this.getAttribute(`labels-${key}`) ?? LABELS[key] ?? key;
    return text.replace(/\{(\w+)\}/g, (_whole, name) => values[name] ?? "");
  }

  #time(instant) {
    const when = new Date(instant ?? Date.now());
    const timeZone = this.getAttribute("time-zone") ?? undefined;
    const dateStyle = when.toDateString() === new Date().toDateString() ? undefined : "short";
    return when.toLocaleString(this.lang || undefined, { dateStyle, timeStyle: "short", timeZone });
  }

  #emit(name, detail) {
    this.dispatchEvent(new CustomEvent(`workflow:${name}`, { bubbles: true, detail }));
  }
}

export class WorkflowTrigger extends HTMLElement {
  connectedCallback() {
    this.addEventListener("submit", (event) => event.defaultPrevented || this.#submit(event));
  }

  #submit(event) {
    event.preventDefault();
    const body = new FormData(event.target, event.submitter);
    let progress = this.querySelector("workflow-progress");
    if (!progress) {
      progress = document.createElement("workflow-progress");
      for (const { name, value } of this.attributes) progress.setAttribute(name, value);
      this.append(progress);
    }
    if (progress.isTriggering) return;
    progress.trigger(body, event.target.action).catch(() => {});
  }
}

function stepOf(row) {
  const { step, status, kind, attempt, until } = row.dataset;
  const known = { success: "completed", failed: "failed", canceled: "failed", retrying: "failed" };
  return {
    stepName: part(row, "name").textContent,
    stepId: Number(step),
    stepType: kind,
    status: known[status] ?? "running",
    shown: status,
    attempt: Number(attempt),
    willRetry: status === "retrying",
    error: part(row, "step-error")?.textContent,
    ...(until && { until: Number(until) }),
  };
}

function runStatusOf(status, error) {
  if (status === "success") return { status };
  if (FINAL.includes(status)) return { status: "failed", error: status === "failed" ? error : status };
  return BUSY.includes(status) ? { status: "running" } : null;
}

function firstLine(text = "") {
  const lines = text.trim().split("\n");
  return lines[0].startsWith("Traceback") ? lines.at(-1) : lines[0];
}

// As a document, in which nothing runs.
function load(url, token) {
  return new Promise((resolve) => {
    const request = new XMLHttpRequest();
    request.open("GET", url);
    request.responseType = "document";
    if (token) request.setRequestHeader("X-Workflow-Token", token);
    request.onloadend = () => resolve(request);
    request.send();
  });
}

if (!customElements.get("workflow-progress")) {
  customElements.define("workflow-progress", WorkflowProgress);
  customElements.define("workflow-trigger", WorkflowTrigger);
}
