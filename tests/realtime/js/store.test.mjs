import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { EMPTY, Journal, createWorkflowStore, statusOf, stepStatus } from "./store.js";

const RUN = "wfr_1";
let number = 0;

/** A message of the run's channel; its id follows the one before. */
function message(type, fields = {}) {
  number += 1;
  const timestamp = 1_760_000_000_000 + number;
  const data = { type, workflowRunId: RUN, timestamp, ...fields };
  return { id: `${timestamp}-0`, channel: RUN, event: "workflow.update", data };
}

function step(type, stepId, fields = {}) {
  return message(type, { stepId, stepName: `step ${stepId}`, attempt: 1, ...fields });
}

function stateOf(messages) {
  const journal = new Journal();
  for (const one of messages) journal.add(one);
  return journal.state;
}

function shuffled(list, seed) {
  const copy = [...list];
  let random = seed;
  for (let i = copy.length - 1; i > 0; i -= 1) {
    random = (random * 1_103_515_245 + 12_345) % 2 ** 31;
    const j = random % (i + 1);
    [copy[i], copy[j]] = [copy[j], copy[i]];
  }
  return copy;
}

const ORDER = [
  message("runStart"),
  step("stepStart", 1),
  step("stepFinish", 1, { result: { valid: true } }),
  step("stepStart", 2),
  step("stepFail", 2, { error: "card declined", willRetry: true, maxAttempts: 4, nextRetryAt: 1_760_000_100_000 }),
  step("stepStart", 2, { attempt: 2 }),
  step("stepFinish", 2, { attempt: 2, result: 7 }),
  step("stepStart", 3, { attempt: undefined, stepType: "Wait" }),
  message("waitingForInput", { eventId: "approve", message: "Ship it?" }),
  message("progress", { done: 3, total: 10 }),
  message("inputResolved", { eventId: "approve" }),
  step("stepFinish", 3, { stepType: "Wait" }),
  step("stepStart", 4),
  step("stepStart", 5),
  step("stepFinish", 5),
  step("stepFinish", 4),
  message("runFinish", { status: "success" }),
];

describe("the same state, however the events arrive", () => {
  const live = stateOf(ORDER);

  test("in order", () => {
    assert.deepEqual(live.steps.map((one) => [one.stepId, one.status, one.attempt]), [
      [1, "completed", 1],
      [2, "completed", 2],
      [3, "completed", 1],
      [4, "completed", 1],
      [5, "completed", 1],
    ]);
    assert.deepEqual(live.runStatus, { status: "success" });
    assert.deepEqual(live.progress, { done: 3, total: 10 });
    assert.deepEqual(live.waits, []);
  });

  test("replayed from the beginning", () => {
    assert.deepEqual(stateOf([...ORDER, ...ORDER]), live);
  });

  test("each twice", () => {
    assert.deepEqual(stateOf(ORDER.flatMap((one) => [one, one])), live);
  });

  test("backwards", () => {
    assert.deepEqual(stateOf(ORDER.toReversed()), live);
  });

  test("re-ordered, with repeats", () => {
    for (let seed = 1; seed <= 300; seed += 1) {
      assert.deepEqual(stateOf(shuffled([...ORDER, ...ORDER.slice(3, 9)], seed)), live);
    }
  });

  test("at every point of a replay", () => {
    for (let seen = 0; seen <= ORDER.length; seen += 1) {
      const head = ORDER.slice(0, seen);
      assert.deepEqual(stateOf(shuffled([...head, ...head], seen + 1)), stateOf(head));
    }
  });

  test("on top of a snapshot that already has some of them", () => {
    for (let seen = 0; seen <= ORDER.length; seen += 1) {
      const journal = new Journal();
      const cursor = ORDER[seen - 1]?.id ?? "0-0";
      for (const one of shuffled(ORDER, seen + 1)) journal.add(one);
      journal.load(stateOf(ORDER.slice(0, seen)), cursor);
      assert.deepEqual(journal.state, live);
    }
  });

  test("when the snapshot is ahead of its cursor", () => {
    // The server reads the cursor first and the state after: events in between are applied twice.
    for (let cursor = 0; cursor < ORDER.length; cursor += 1) {
      for (let state = cursor + 1; state <= ORDER.length; state += 1) {
        const journal = new Journal();
        journal.load(stateOf(ORDER.slice(0, state)), ORDER[cursor].id);
        for (const one of ORDER) journal.add(one);
        const statuses = journal.state.steps.map((one) => [one.stepId, one.status, one.attempt]);
        assert.deepEqual(statuses, live.steps.map((one) => [one.stepId, one.status, one.attempt]));
        assert.deepEqual(journal.state.runStatus, live.runStatus);
        assert.deepEqual(journal.state.waits, []);
      }
    }
  });

  test("without ids of steps, by name and occurrence", () => {
    const named = [
      message("runStart"),
      message("stepStart", { stepName: "poll" }),
      message("stepFinish", { stepName: "poll", result: 1 }),
      message("stepStart", { stepName: "poll" }),
      message("stepFinish", { stepName: "poll", result: 2 }),
    ];
    const state = stateOf(named);
    assert.deepEqual(state.steps.map((one) => one.result), [1, 2]);
    for (let seed = 1; seed <= 50; seed += 1) assert.deepEqual(stateOf(shuffled([...named, ...named], seed)), state);
  });

  test("longer than what is kept", () => {
    const journal = new Journal();
    const many = Array.from({ length: 9000 }, (_, index) => step("stepStart", index + 1));
    for (const one of many) journal.add(one);
    for (const one of many.slice(-100)) assert.equal(journal.add(one), false);
    assert.equal(journal.state.steps.length, 9000);
    assert.ok(journal.log.length <= 4000);
  });
});

describe("rules", () => {
  test("a step that is over does not run again, unless it is tried again", () => {
    const over = [step("stepStart", 1), step("stepFinish", 1)];
    assert.equal(stateOf([...over, step("stepStart", 1)]).steps[0].status, "completed");
    assert.equal(stateOf([...over, step("stepStart", 1, { attempt: 2 })]).steps[0].status, "running");
    assert.equal(stateOf([...over, step("stepFail", 1)]).steps[0].status, "completed");
  });

  test("a run that is over stays so", () => {
    const failed = [message("runStart"), message("runFinish", { status: "failed", error: "x" })];
    assert.deepEqual(stateOf([...failed, message("runFinish", { status: "success" })]).runStatus, {
      status: "failed",
      error: "x",
    });
    assert.deepEqual(stateOf([...failed, message("waitingForInput", { eventId: "e" })]).waits, []);
  });

  test("a failed attempt shows its error until the next", () => {
    const state = stateOf([step("stepStart", 1), step("stepFail", 1, { error: "no", willRetry: true })]);
    assert.equal(state.steps[0].status, "failed");
    assert.equal(state.steps[0].error, "no");
    assert.equal(stepStatus(state.steps[0]), "retrying");
    assert.equal(statusOf(state), "retrying");
    const again = stateOf([step("stepFail", 1, { error: "no" }), step("stepStart", 1, { attempt: 2 })]);
    assert.equal(again.steps[0].error, undefined);
  });

  test("a result without a start is appended", () => {
    assert.deepEqual(stateOf([step("stepFinish", 1)]).steps.map((one) => one.status), ["completed"]);
  });

  test("steps stand in the order of their numbers", () => {
    const state = stateOf([step("stepStart", 3), step("stepStart", 1), step("stepFinish", 2)]);
    assert.deepEqual(state.steps.map((one) => one.stepId), [1, 2, 3]);
  });

  test("a question that was answered does not come back, a new one does", () => {
    const asked = message("waitingForInput", { eventId: "e", message: "?" });
    const answered = message("inputResolved", { eventId: "e" });
    const copy = { ...asked, id: undefined };
    assert.deepEqual(stateOf([asked, answered, copy]).waits, []);
    assert.equal(stateOf([asked, answered, message("waitingForInput", { eventId: "e" })]).waits.length, 1);
  });

  test("of two questions the later is asked first", () => {
    const store = createWorkflowStore();
    store.apply(message("waitingForInput", { eventId: "a", message: "A?" }));
    store.apply(message("waitingForInput", { eventId: "b", message: "B?" }));
    assert.equal(store.getState().waitingState.eventId, "b");
    store.apply(message("inputResolved", { eventId: "b" }));
    assert.equal(store.getState().waitingState.eventId, "a");
  });

  test("a wait for another program is no question", () => {
    const store = createWorkflowStore();
    store.apply(message("waitingForInput", { eventId: "a", stepType: "WaitForWebhook" }));
    assert.equal(store.getState().waitingState, null);
    assert.equal(store.getState().status, "waiting");
  });

  test("a canceled run is told from a failed one", () => {
    assert.equal(statusOf(stateOf([message("runFinish", { status: "failed", error: "canceled" })])), "canceled");
    assert.equal(statusOf(stateOf([message("runFinish", { status: "canceled" })])), "canceled");
    assert.equal(statusOf(stateOf([message("runFinish", { status: "failed", error: "x" })])), "failed");
  });

  test("the most urgent of parallel steps is the run's", () => {
    const running = step("stepStart", 1);
    const waiting = step("stepStart", 2, { stepType: "Wait" });
    const failing = step("stepFail", 3, { willRetry: true });
    assert.equal(statusOf(stateOf([waiting])), "waiting");
    assert.equal(statusOf(stateOf([waiting, running])), "running");
    assert.equal(statusOf(stateOf([waiting, running, failing])), "retrying");
  });

  test("a failure outside of any step is no step", () => {
    const state = stateOf([message("runStart"), message("stepFail", { stepName: "", error: "x", willRetry: true })]);
    assert.deepEqual(state.steps, []);
    assert.equal(statusOf(state), "retrying");
    assert.equal(statusOf(stateOf([message("stepFail", { stepName: "", willRetry: true }), step("stepStart", 1)])), "running");
  });

  test("the status of the server holds until an event tells more", () => {
    const journal = new Journal();
    journal.load({ ...EMPTY, runStatus: { status: "running" }, shown: "paused" }, "5-0");
    assert.equal(statusOf(journal.state), "paused");
    journal.add(step("stepStart", 1));
    assert.equal(statusOf(journal.state), "running");
  });

  test("a sleep is over with what comes after it", () => {
    const sleeping = { stepName: "sleep", stepId: 1, status: "running", shown: "sleeping", until: number + 1_760_000_000_000 };
    const journal = new Journal();
    journal.load({ ...EMPTY, steps: [sleeping], shown: "sleeping" }, "5-0");
    assert.equal(statusOf(journal.state), "sleeping");
    journal.add(step("stepStart", 2));
    assert.deepEqual(journal.state.steps.map(stepStatus), ["success", "running"]);
  });

  test("the split form means the same", () => {
    const split = (name, data) => ({ id: `${(number += 1)}-0`, event: `workflow.${name}`, data });
    const state = stateOf([split("stepFinish", { stepName: "a", result: 1 }), split("runFinish", {})]);
    assert.deepEqual(state.steps.map((one) => [one.stepName, one.result]), [["a", 1]]);
    assert.deepEqual(state.runStatus, { status: "success" });
  });

  test("other events change nothing", () => {
    for (const event of ["order.placed", "workflow", "workflow.shouted", undefined]) {
      assert.deepEqual(stateOf([{ id: "5-0", event, data: { type: "stepStart" } }]), EMPTY);
    }
    assert.deepEqual(stateOf([{ id: "5-0", event: "workflow.update", data: null }]), EMPTY);
  });
});

describe("the store", () => {
  test("starts with nothing", () => {
    const { isTriggering, workflowRunId, steps, runStatus, waitingState, status } = createWorkflowStore().getState();
    assert.deepEqual({ isTriggering, workflowRunId, steps, runStatus, waitingState, status }, {
      isTriggering: false,
      workflowRunId: null,
      steps: [],
      runStatus: null,
      waitingState: null,
      status: "not-started",
    });
  });

  test("gives the same state until something changes", () => {
    const store = createWorkflowStore();
    const before = store.getState();
    assert.equal(store.getState(), before);
    store.apply(message("runStart"));
    assert.notEqual(store.getState(), before);
    const after = store.getState();
    store.apply(message("shout"));
    assert.deepEqual(store.getState(), after);
  });

  test("tells listeners of news, once", () => {
    const store = createWorkflowStore();
    const heard = [];
    const stop = store.subscribe((one) => heard.push(one.data.type));
    const start = message("runStart");
    store.apply(start);
    store.apply(start);
    stop();
    store.apply(message("runFinish"));
    assert.deepEqual(heard, ["runStart"]);
  });

  test("answers what is asked", async (context) => {
    const calls = [];
    context.mock.method(globalThis, "fetch", async (url, options) => {
      calls.push([url, JSON.parse(options.body), options.headers["X-CSRFToken"], options.headers["X-Workflow-Token"]]);
      return Response.json({ success: true, resolved: 1 });
    });
    const store = createWorkflowStore({ notifyUrl: "/events/{eventId}/notify/", csrfToken: "c", token: "t" });
    await assert.rejects(store.continueWorkflow({}), { message: "No workflow waiting for input" });
    store.apply(message("waitingForInput", { eventId: "a/b c", message: "?" }));
    await store.continueWorkflow({ approved: true });
    assert.deepEqual(calls, [["/events/a%2Fb%20c/notify/", { eventData: { approved: true } }, "c", "t"]]);
    assert.notEqual(store.getState().waitingState, null);
    store.apply(message("inputResolved", { eventId: "a/b c" }));
    assert.equal(store.getState().waitingState, null);
  });

  test("says why an answer was not taken", async (context) => {
    context.mock.method(globalThis, "fetch", async () => Response.json({ detail: "Too late." }, { status: 409 }));
    const store = createWorkflowStore({ notifyUrl: "/{eventId}" });
    store.apply(message("waitingForInput", { eventId: "a" }));
    await assert.rejects(store.continueWorkflow({}), { message: "Too late.", status: 409 });
  });

  test("forgets the last run when one is triggered, also when that fails", async (context) => {
    context.mock.method(globalThis, "fetch", async () => new Response("<h1>", { status: 500 }));
    const store = createWorkflowStore({ triggerUrl: "/trigger/" });
    store.apply(step("stepStart", 1));
    const triggered = store.trigger({ a: 1 });
    assert.equal(store.getState().isTriggering, true);
    assert.equal(store.getState().status, "starting");
    await assert.rejects(triggered, { message: "HTTP status 500" });
    assert.equal(store.getState().isTriggering, false);
    assert.deepEqual(store.getState().steps, []);
  });
});
