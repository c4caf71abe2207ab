// An Express application with workflows of every kind of step. Deliveries are verified with the keys of the
// environment, and bodies are parsed before they reach the SDK, as most Express applications do it.

import { setTimeout } from "node:timers/promises";
import express from "express";
import { WorkflowNonRetryableError, WorkflowRetryAfterError } from "@upstash/workflow";
import { createWorkflow, serveMany } from "@upstash/workflow/express";

// What happened outside of results, by run: read with GET /records/<run id>.
const records = new Map();
// How often the engine called, by run.
const requests = new Map();
function record(runId, entry) {
  records.set(runId, [...(records.get(runId) ?? []), entry]);
}

// The first step of workflows that need their payload before a step: while the SDK handles the answer of a call, the
// payload is not there.
const payload = (context) => context.run("read payload", () => context.requestPayload);

const results = createWorkflow(async (context) => {
  const object = await context.run("object", () => ({ n: 1, text: "grüße ☃", nested: [true, null] }));
  const text = await context.run("text", () => "plain");
  const nothing = await context.run("nothing", () => undefined);
  const empty = await context.run("empty", () => null);
  const number = await context.run("number", async () => 4.5);
  return { object, text, nothing: typeof nothing, empty, number, payload: context.requestPayload };
});

const nothing = createWorkflow(async (context) => {
  await context.run("one", () => undefined);
});

const sleeps = createWorkflow(async (context) => {
  const began = await context.run("begin", () => Date.now());
  await context.sleep("a number", 1);
  await context.sleep("a duration", "1s");
  const slept = await context.run("after sleeps", () => Date.now());
  await context.sleepUntil("a date", new Date(slept + 1000));
  await context.sleepUntil("seconds", Math.round(slept / 1000) - 60);
  const woke = await context.run("end", () => Date.now());
  return { slept: slept - began, until: woke - slept };
});

const calls = createWorkflow(async (context) => {
  const settings = await payload(context);
  const answers = {};
  for (const [name, setting] of Object.entries(settings)) {
    answers[name] = await context.call(name, setting);
  }
  return answers;
});

const surroundings = createWorkflow(async (context) => {
  await context.run("one", () => 1);
  return {
    id: context.workflowRunId,
    createdAt: context.workflowRunCreatedAt,
    url: context.url,
    label: context.label,
    labels: context.labels,
    retried: context.retried,
    mine: context.headers.get("x-mine"),
    messageId: context.headers.get("upstash-message-id"),
    agent: context.headers.get("user-agent"),
  };
});

const large = createWorkflow(async (context) => {
  const text = await context.run("large", () => "é".repeat(2_621_440)); // 5 MiB in UTF-8
  const length = await context.run("measure", () => text.length);
  return { length, same: /^é+$/.test(text) };
});

const waits = createWorkflow(async (context) => {
  const { event, timeout } = await payload(context);
  const answer = await context.waitForEvent("wait", event, { timeout });
  return { ...answer, data: typeof answer.eventData };
});

const notifies = createWorkflow(async (context) => {
  const { event, data, runId } = await payload(context);
  const { eventId, eventData, notifyResponse } = await context.notify("tell", event, data, runId);
  return { eventId, eventData, told: notifyResponse.length };
});

const webhooks = createWorkflow(async (context) => {
  const { gate, timeout } = await payload(context);
  const webhook = await context.createWebhook("make");
  if (gate) await context.waitForEvent("gate", gate);
  const told = [];
  for (const name of ["first", "second"]) {
    const answer = await context.waitForWebhook(name, webhook, timeout ?? "20s");
    if (answer.timeout) return { timeout: true };
    const { method, url, headers } = answer.request;
    told.push({ method, url, body: await answer.request.text(), header: headers.get("x-caller") });
  }
  return told;
});

const child = createWorkflow(async (context) => {
  const { mode, value } = await payload(context);
  if (mode === "fail") throw new WorkflowNonRetryableError("the child cannot");
  if (mode === "cancel") await context.cancel();
  return { value, header: context.headers.get("x-child"), label: context.label };
});

const parent = createWorkflow(async (context) => {
  const { mode, value, label } = await payload(context);
  const answer = await context.invoke("child", {
    workflow: child,
    body: { mode, value },
    headers: { "x-child": "from the parent" },
    retries: 0,
    label,
  });
  return answer;
});

const parallel = createWorkflow(async (context) => {
  const { target, event, neverEvent } = await payload(context);
  const started = await context.run("before", () => Date.now());
  const [one, two, call, happened, missed] = await Promise.all([
    context.run("one", () => 1),
    context.run("two", () => ({ two: 2 })),
    context.call("call", { url: target, method: "POST", body: "{}" }),
    context.waitForEvent("happened", event, { timeout: "30s" }),
    context.waitForEvent("missed", neverEvent, { timeout: "1s" }),
    context.sleep("sleep", 1),
    context.sleepUntil("until", new Date(started + 1000)),
  ]);
  const after = await context.run("after", () => "done");
  return { one, two, call: call.body, happened: happened.eventData, missed: missed.timeout, after };
});

const chains = createWorkflow(async (context) => {
  const chain = async (name) => {
    const first = await context.run(`${name} first`, () => name);
    await context.sleep(`${name} sleep`, name === "a" ? 1 : 0);
    return await context.run(`${name} last`, () => `${first}!`);
  };
  return await Promise.all([chain("a"), chain("b")]);
});

const branches = createWorkflow(async (context) => {
  const { times, patient } = await payload(context);
  const told = await Promise.all([
    context.run("steady", () => {
      record(context.workflowRunId, "steady ran");
      return 1;
    }),
    context.run("flaky", async () => {
      // The fifth call of the run is the one that brings the result of the other branch.
      while (context.workflowRunId === patient && requests.get(patient) < 5) await setTimeout(5);
      if (context.retried < times) throw new Error(`failed at ${context.retried}`);
      return 2;
    }),
  ]);
  return await context.run("after", () => told);
});

const cancels = createWorkflow(async (context) => {
  await context.run("before", () => 1);
  await context.cancel();
});

const failures = createWorkflow(
  async (context) => {
    const { kind, times = 1_000, delay = 1, data } = await payload(context);
    const answer = await context.run("may fail", () => {
      if (context.retried >= times) return { retried: context.retried };
      if (kind === "nonretryable") throw new WorkflowNonRetryableError("never again");
      if (kind === "later") throw new WorkflowRetryAfterError("not yet", delay);
      throw new Error(`failed at ${context.retried}`);
    });
    return { ...answer, data };
  },
  {
    failureFunction: ({ context, failStatus, failResponse, failHeaders }) => {
      const headers = Object.keys(failHeaders);
      record(context.workflowRunId, {
        failStatus,
        failResponse,
        payload: context.requestPayload,
        url: context.url,
        step: failHeaders[headers.find((name) => name.toLowerCase() === "upstash-error-step-name")],
      });
      if (context.requestPayload.failAgain > records.get(context.workflowRunId).length) throw new Error("and again");
      return `took note of ${failResponse}`;
    },
  },
);

const unguarded = createWorkflow(async (context) => {
  await context.run("fails", () => {
    throw new TypeError("nobody looks at this");
  });
});

const middle = createWorkflow(async (context) => {
  const { event } = await payload(context);
  const first = await context.run("first", () => ({ first: 1 }));
  const { eventData } = await context.waitForEvent("middle", event);
  return await context.run("last", () => ({ ...first, eventData }));
});

const app = express();
app.use(express.json({ limit: "32mb" }));
app.use(express.text({ limit: "32mb" }));
app.use((request, response, next) => {
  const runId = request.get("upstash-workflow-runid");
  requests.set(runId, (requests.get(runId) ?? 0) + 1);
  if (request.get("content-length") === "0") record(runId, "fetched");
  next();
});
app.use(
  "/workflows",
  serveMany({
    results,
    nothing,
    sleeps,
    calls,
    surroundings,
    large,
    waits,
    notifies,
    webhooks,
    child,
    parent,
    parallel,
    chains,
    branches,
    cancels,
    failures,
    unguarded,
    middle,
  }),
);
app.get("/records/:run", (request, response) => response.json(records.get(request.params.run) ?? []));

const server = app.listen(0, "127.0.0.1", () => console.log(JSON.stringify({ port: server.address().port })));
process.stdin.on("end", () => process.exit()).resume();
