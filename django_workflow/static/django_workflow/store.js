// The state of a run: its events, in the order of their ids, folded on top of what the server rendered as of a cursor.
// So live, replayed, repeated and re-ordered input end in the same state.

import { compareIds, connectionFor } from "./connection.js";

const FINAL = ["success", "failed"];
const LONGEST_LOG = 4000;

// `shown`: the status that the server gave, until an event tells more. Steps have one as well.
export const EMPTY = {
  steps: [], runStatus: null, waits: [], resolved: {}, progress: null, problem: null, shown: null,
};

export function eventOf({ event, data, id = "0" }) {
  const [space, name] = String(event).split(".");
  if (space !== "workflow" || !data) return null;
  return { timestamp: Number.parseInt(id), ...data, type: name === "update" ? data.type : name };
}

export function reduce(state, event) {
  const { type, timestamp, eventId } = event;
  // No event tells that a sleep is over.
  const wake = (step) =>
    step.shown === "sleeping" && step.until <= timestamp ? { ...step, status: "completed", shown: null } : step;
  const steps = state.steps.map(wake);
  const over = FINAL.includes(state.runStatus?.status);
  const next = { ...state, steps, shown: null, runStatus: state.runStatus ?? { status: "running" } };
  switch (type) {
    case "runStart":
      break;
    case "runFinish": {
      const canceled = event.status === "canceled";
      const error = event.error ?? (canceled ? "canceled" : null);
      const status = canceled ? "failed" : event.status ?? "success";
      if (!over) next.runStatus = error === null ? { status } : { status, error };
      return { ...next, waits: [], problem: null };
    }
    case "stepStart":
    case "stepFinish":
    case "stepFail":
      if (event.stepName || event.stepId != null) return { ...next, problem: null, steps: withStep(steps, event) };
      next.problem = event;
      break;
    case "waitingForInput":
      if (over || timestamp <= state.resolved[eventId]) return next;
      next.waits = [
        ...without(state.waits, eventId),
        { eventId, message: event.message, timestamp, stepType: event.stepType ?? "Wait" },
      ];
      break;
    case "inputResolved":
      next.resolved = { ...state.resolved, [eventId]: timestamp };
      next.waits = without(state.waits, eventId);
      break;
    case "progress":
      next.progress = { done: event.done, total: event.total };
      break;
    default:
      return state;
  }
  return next;
}

function without(waits, eventId) {
  return waits.filter((wait) => wait.eventId !== eventId);
}

function withStep(steps, event) {
  const index = indexOfStep(steps, event);
  if (index >= 0) return steps.with(index, changedStep(steps[index], event));
  const added = [...steps, changedStep({ status: "running" }, event)];
  return steps.at(-1)?.stepId > event.stepId ? added.sort((a, b) => a.stepId - b.stepId || 0) : added;
}

// Without an id it is the last of that name, while that is open.
function indexOfStep(steps, { stepId, stepName, attempt }) {
  if (steps.at(-1)?.stepId < stepId) return -1;
  if (stepId != null) return steps.findLastIndex((step) => step.stepId === stepId);
  const index = steps.findLastIndex((step) => step.stepName === stepName);
  const step = steps[index];
  return step && (step.status === "running" || step.willRetry || attempt > step.attempt) ? index : -1;
}

function changedStep(step, event) {
  const { type, stepName, stepId, stepType, timestamp, attempt = 1, result } = event;
  const before = step.attempt ?? 0;
  if (type === "stepFinish") {
    if (step.status === "completed" && "result" in step) return step;
  } else if (attempt < before || (attempt === before && step.status !== "running")) {
    return step;
  }
  const next = { stepName: stepName ?? step.stepName, timestamp, attempt: Math.max(attempt, before) };
  if (stepId != null) next.stepId = stepId;
  if (stepType ?? step.stepType) next.stepType = stepType ?? step.stepType;
  if (type === "stepStart") return { ...next, status: "running" };
  if (type === "stepFinish") return { ...next, status: "completed", ...("result" in event && { result }) };
  const { error, maxAttempts, willRetry, nextRetryAt } = event;
  return { ...next, status: "failed", error, maxAttempts, willRetry, nextRetryAt };
}

export function stepStatus({ status, shown, willRetry, stepType }) {
  if (shown) return shown;
  if (status === "completed") return "success";
  if (status === "failed") return willRetry ? "retrying" : "failed";
  return /^(Wait|Invoke)/.test(stepType) ? "waiting" : "running";
}

export function statusOf(state) {
  const { status, error } = state.runStatus ?? {};
  if (FINAL.includes(status)) return error === "canceled" ? "canceled" : status;
  if (state.shown) return state.shown;
  const found = state.steps.map(stepStatus);
  if (state.problem?.willRetry) return "retrying";
  if (state.waits.length) found.push("waiting");
  return ["retrying", "running", "waiting", "sleeping"].find((one) => found.includes(one)) ?? status ?? null;
}

export class Journal {
  log = [];

  constructor() {
    this.load(EMPTY, "0-0");
  }

  // Events after the snapshot's cursor are applied again.
  load(state, cursor) {
    this.base = state;
    this.cursor = cursor;
    this.log = this.log.filter(({ id }) => !id || compareIds(id, cursor) > 0);
    this.news = this.log.length > 0;
    this.#fold();
  }

  add(message) {
    const event = eventOf(message);
    const { id } = message;
    const key = id ?? JSON.stringify(message);
    if (!event || this.keys.has(key) || (id && compareIds(id, this.cursor) <= 0)) return false;
    const before = (other) =>
      id && other.id ? compareIds(id, other.id) < 0 : event.timestamp < other.event.timestamp;
    let place = this.log.length;
    while (place && before(this.log[place - 1])) place -= 1;
    this.log.splice(place, 0, { key, id, event });
    this.keys.add(key);
    if (place < this.log.length - 1) this.#fold();
    else this.state = reduce(this.state, event);
    if (this.log.length > LONGEST_LOG) this.load(this.state, this.log.at(-1).id ?? this.cursor);
    return (this.news = true);
  }

  #fold() {
    this.keys = new Set(this.log.map(({ key }) => key));
    this.state = this.log.reduce((folded, entry) => reduce(folded, entry.event), this.base);
  }
}

export async function post(url, body, { csrf, token } = {}) {
  const headers = { Accept: "application/json" };
  headers["X-CSRFToken"] = csrf ?? globalThis.document?.cookie.match(/\bcsrftoken=([^;]+)/)?.[1] ?? "";
  if (token) headers["X-Workflow-Token"] = token;
  if (!(body instanceof FormData)) {
    headers["Content-Type"] = "application/json";
    body = JSON.stringify(body);
  }
  const response = await fetch(url, { method: "POST", headers, body, credentials: "same-origin" });
  const answer = await response.json().catch(() => ({}));
  if (response.ok) return { ...answer, response };
  const reason = answer.error ?? answer.detail ?? `HTTP status ${response.status}`;
  throw Object.assign(new Error(String(reason)), { status: response.status, fields: answer.errors });
}

// Options: src, triggerUrl, notifyUrl (with `{eventId}`), token, csrfToken, transport.
export function createWorkflowStore(options = {}) {
  const listeners = new Set();
  const own = { isTriggering: false, workflowRunId: null, connection: "idle" };
  let journal = new Journal();
  let subscription = null;
  let view = null;

  function changed(message) {
    view = null;
    for (const listener of [...listeners]) listener(message);
  }

  function send(url, body) {
    return post(url, body, { csrf: options.csrfToken, token: options.token });
  }

  const store = {
    subscribe(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    getState() {
      const { state, news } = journal;
      const { steps, runStatus, progress, problem } = state;
      // Webhooks and other runs are not asked.
      const waitingState = state.waits.findLast((wait) => wait.stepType === "Wait") ?? null;
      const status = statusOf(state) ?? (own.workflowRunId ? "queued" : own.isTriggering ? "starting" : "not-started");
      const { trigger, continueWorkflow } = store;
      const known = { steps, runStatus, waitingState, progress, problem, status, news };
      return (view ??= { ...own, ...known, trigger, continueWorkflow });
    },
    apply(message) {
      const news = journal.add(message);
      if (news || !eventOf(message)) changed(message);
      return news;
    },
    load(state, cursor, news) {
      journal.load(state, cursor);
      journal.news ||= news;
      changed();
    },
    watch(runId, { cursor = "0-0", token = options.token, transport = options.transport, ...handlers } = {}) {
      store.disconnect();
      own.workflowRunId = runId;
      options.token = token;
      const onState = (connection) => {
        own.connection = connection;
        changed();
      };
      const listener = { cursor, token, onMessage: store.apply, onState, ...handlers };
      subscription = connectionFor(options.src, transport).subscribe(runId, listener);
    },
    async trigger(payload = {}) {
      store.disconnect();
      journal = new Journal();
      Object.assign(own, { isTriggering: true, workflowRunId: null });
      changed();
      try {
        const { workflowRunId, token } = await send(options.triggerUrl, payload);
        store.watch(workflowRunId, { token });
        return workflowRunId;
      } finally {
        own.isTriggering = false;
        changed();
      }
    },
    async continueWorkflow(data) {
      const { waitingState } = store.getState();
      if (!waitingState) throw new Error("No workflow waiting for input");
      const url = options.notifyUrl.replace("{eventId}", encodeURIComponent(waitingState.eventId));
      return send(url, { eventData: data });
    },
    retry() {
      subscription?.retry();
    },
    disconnect() {
      subscription?.close();
      subscription = null;
    },
    setToken(token) {
      options.token = token;
      subscription?.setToken(token);
    },
  };
  return store;
}
