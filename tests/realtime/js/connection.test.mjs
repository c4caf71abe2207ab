import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";

import { Connection, compareIds, connectionFor } from "./connection.js";

const SRC = "https://shop.example/workflows/realtime/";

let subscriptions;
let sockets;
let polls;
let answers;

class FakeSocket {
  constructor(url) {
    this.url = url;
    this.readyState = 0;
    this.sent = [];
    sockets.push(this);
  }
  send(text) {
    this.sent.push(JSON.parse(text));
  }
  close() {
    this.readyState = 3;
    this.closed = true;
  }
  // what the server does
  open() {
    this.readyState = 1;
    this.onopen();
  }
  say(message) {
    this.onmessage?.({ data: JSON.stringify(message) });
  }
  lose(code = 1006) {
    this.readyState = 3;
    this.onclose?.({ code });
  }
}

async function settle() {
  for (let i = 0; i < 20; i += 1) await Promise.resolve();
}

async function pass(ms) {
  mock.timers.tick(ms);
  await settle();
}

/** A listener that records what it hears. */
function follow(connection, channel = "wfr_1", options = {}) {
  const heard = { ids: [], states: [], gaps: 0, refused: 0 };
  const subscription = connection.subscribe(channel, {
    cursor: "0-0",
    onMessage: (message) => heard.ids.push(message.id),
    onState: (state) => heard.states.push(state),
    onGap: () => (heard.gaps += 1),
    onRefused: () => (heard.refused += 1),
    ...options,
  });
  subscriptions.push(subscription);
  return { heard, subscription };
}

function event(id, channel = "wfr_1") {
  return { id, channel, event: "workflow.update", data: {} };
}

/** A connection whose socket is open and follows the channel. */
async function connected(connection = new Connection(SRC, "auto"), options = {}) {
  const listener = follow(connection, "wfr_1", options);
  await pass(0);
  const socket = sockets.at(-1);
  socket.open();
  socket.say({ type: "connected", channel: "wfr_1", cursor: "0-0" });
  return { connection, socket, ...listener };
}

beforeEach(() => {
  mock.timers.enable({ apis: ["setTimeout", "Date"], now: 1_760_000_000_000 });
  mock.method(Math, "random", () => 1);
  subscriptions = [];
  sockets = [];
  polls = [];
  answers = [];
  globalThis.WebSocket = FakeSocket;
  globalThis.fetch = async (url, options) => {
    polls.push({ url, ...options });
    const answer = answers.shift();
    if (answer instanceof Error || !answer) throw answer ?? new TypeError("Failed to fetch");
    return Response.json(answer.body ?? { messages: [], cursors: {}, more: false }, { status: answer.status ?? 200 });
  };
});

afterEach(async () => {
  await settle();
  for (const subscription of subscriptions) subscription.close();
  await pass(1_000);
  mock.timers.reset();
  mock.restoreAll();
});

test("ids are compared as numbers", () => {
  assert.ok(compareIds("9-0", "10-0") < 0);
  assert.ok(compareIds("10-2", "10-10") < 0);
  assert.ok(compareIds("10", "10-1") < 0);
  assert.equal(compareIds("10-0", "10"), 0);
});

test("one connection serves a page and endpoint", () => {
  assert.equal(connectionFor(SRC), connectionFor(SRC));
  assert.notEqual(connectionFor(SRC), connectionFor(`${SRC}other/`));
});

test("widgets that start together share one socket and one frame", async () => {
  const connection = new Connection(SRC, "auto");
  follow(connection, "a", { token: "t" });
  follow(connection, "b", { token: "t", cursor: "5-0" });
  follow(connection, "c");
  await pass(0);
  assert.deepEqual(sockets.map((socket) => socket.url), ["wss://shop.example/workflows/realtime/ws/"]);
  sockets[0].open();
  assert.deepEqual(sockets[0].sent, [
    { type: "subscribe", channels: { a: "0-0", b: "5-0" }, token: "t" },
    { type: "subscribe", channels: { c: "0-0" } },
  ]);
});

test("a channel that comes later is added", async () => {
  const { connection, socket } = await connected();
  follow(connection, "late");
  await pass(0);
  assert.equal(sockets.length, 1);
  assert.deepEqual(socket.sent.at(-1), { type: "subscribe", channels: { late: "0-0" } });
});

test("messages reach their listeners once", async () => {
  const { socket, heard } = await connected();
  for (const id of ["1-0", "2-0", "2-0", "1-0", "2-1", "3-0"]) socket.say(event(id));
  socket.say(event("4-0", "another"));
  assert.deepEqual(heard.ids, ["1-0", "2-0", "2-1", "3-0"]);
});

test("after a break the cursor says where to go on", async () => {
  const { socket, heard } = await connected();
  socket.say(event("7-0"));
  socket.lose();
  assert.equal(heard.states.at(-1), "reconnecting");
  await pass(500);
  sockets[1].open();
  assert.deepEqual(sockets[1].sent, [{ type: "subscribe", channels: { wfr_1: "7-0" } }]);
  sockets[1].say({ type: "connected", channel: "wfr_1", cursor: "8-0" });
  for (const id of ["7-0", "8-0"]) sockets[1].say(event(id));
  assert.deepEqual(heard.ids, ["7-0", "8-0"]);
  assert.equal(heard.states.at(-1), "connected");
});

test("the cursor moves after the handler ran", async () => {
  const connection = new Connection(SRC, "auto");
  let socketDuring;
  const { socket } = await connected(connection, {
    onMessage() {
      // The socket is lost while the handler runs: the message is asked for again.
      socketDuring = socket;
      socket.lose();
    },
  });
  socket.say(event("7-0"));
  assert.equal(socketDuring, socket);
  await pass(500);
  sockets[1].open();
  assert.deepEqual(sockets[1].sent[0].channels, { wfr_1: "7-0" });
});

test("a handler that throws does not stop the others", async () => {
  const reported = [];
  globalThis.reportError = (error) => reported.push(error.message);
  const connection = new Connection(SRC, "auto");
  follow(connection, "wfr_1", {
    onMessage() {
      throw new Error("broken");
    },
  });
  const { socket, heard } = await connected(connection);
  socket.say(event("1-0"));
  socket.say(event("2-0"));
  assert.deepEqual(heard.ids, ["1-0", "2-0"]);
  assert.deepEqual(reported, ["broken", "broken"]);
});

test("the oldest of two cursors is asked for, and nobody hears twice", async () => {
  const { connection, socket, heard } = await connected();
  socket.say(event("5-0"));
  const late = follow(connection, "wfr_1", { cursor: "3-0" });
  await pass(0);
  assert.deepEqual(socket.sent.at(-1).channels, { wfr_1: "3-0" });
  for (const id of ["4-0", "5-0", "6-0"]) socket.say(event(id));
  assert.deepEqual(heard.ids, ["5-0", "6-0"]);
  assert.deepEqual(late.heard.ids, ["4-0", "5-0", "6-0"]);
});

test("a gap is told, and what is kept follows", async () => {
  const { socket, heard } = await connected(new Connection(SRC, "auto"), { cursor: "9-0" });
  socket.say({ type: "gap", channel: "wfr_1", oldest: "3-0", cursor: "4-0" });
  for (const id of ["3-0", "4-0"]) socket.say(event(id));
  assert.equal(heard.gaps, 1);
  assert.deepEqual(heard.ids, ["3-0", "4-0"]);
});

test("a refused channel is given up, the others go on", async () => {
  const { connection, socket, heard } = await connected();
  const other = follow(connection, "wfr_2");
  await pass(0);
  socket.say({ type: "error", code: "forbidden", channel: "wfr_2", error: "no" });
  assert.deepEqual([other.heard.refused, heard.refused], [1, 0]);
  socket.say(event("1-0"));
  assert.deepEqual(heard.ids, ["1-0"]);
  socket.lose();
  await pass(500);
  sockets[1].open();
  assert.deepEqual(sockets[1].sent[0].channels, { wfr_1: "1-0" });
});

test("a connection that is refused as a whole is not tried again", async () => {
  const { connection, socket, heard } = await connected();
  socket.lose(4403);
  assert.equal(heard.refused, 1);
  assert.equal(heard.states.at(-1), "closed");
  await pass(600_000);
  assert.equal(sockets.length, 1);
  assert.equal(polls.length, 0);
  follow(connection, "wfr_2");
  await pass(0);
  assert.equal(sockets.length, 2);
});

test("without sockets it polls", async () => {
  delete globalThis.WebSocket;
  const connection = new Connection(SRC, "auto");
  const { heard } = follow(connection, "wfr_1", { cursor: "1-0", token: "t" });
  answers = [{ body: { messages: [event("2-0")], cursors: { wfr_1: "2-0" }, more: false } }, {}, {}];
  await pass(0);
  await settle();
  assert.equal(String(polls[0].url), `${SRC}poll/?channel=wfr_1&last_ack_wfr_1=1-0`);
  assert.equal(polls[0].headers["X-Workflow-Token"], "t");
  assert.deepEqual(heard.ids, ["2-0"]);
  assert.equal(heard.states.at(-1), "polling");
  await pass(2_000);
  assert.equal(new URL(polls[1].url).searchParams.get("last_ack_wfr_1"), "2-0");
  await pass(2_999);
  assert.equal(polls.length, 2); // nothing was new: it asks less often
  await pass(1);
  assert.equal(polls.length, 3);
});

test("polls become as rare as 15 seconds", async () => {
  const connection = new Connection(SRC, "poll");
  follow(connection);
  answers = Array.from({ length: 100 }, () => ({}));
  await pass(0);
  for (let i = 0; i < 30; i += 1) await pass(1_000);
  const before = polls.length;
  for (let i = 0; i < 60; i += 1) await pass(1_000);
  assert.equal(polls.length - before, 4);
});

test("pages of a poll follow one another at once", async () => {
  const connection = new Connection(SRC, "poll");
  const { heard } = follow(connection);
  answers = [
    { body: { messages: [event("1-0")], cursors: {}, more: true } },
    { body: { messages: [event("2-0")], cursors: {}, more: false } },
  ];
  await pass(0);
  await pass(0);
  assert.deepEqual(heard.ids, ["1-0", "2-0"]);
});

test("a socket that fails twice is left for polling, and tried again after five minutes", async () => {
  const connection = new Connection(SRC, "auto");
  const { heard } = follow(connection);
  answers = Array.from({ length: 200 }, () => ({}));
  await pass(0);
  sockets[0].lose();
  await pass(500);
  sockets[1].lose();
  await settle();
  assert.equal(heard.states.at(-1), "polling");
  for (let i = 0; i < 290; i += 1) await pass(1_000);
  assert.equal(sockets.length, 2);
  for (let i = 0; i < 30; i += 1) await pass(1_000);
  assert.equal(sockets.length, 3);
  sockets[2].open();
  sockets[2].say({ type: "connected", channel: "wfr_1", cursor: "0-0" });
  assert.equal(heard.states.at(-1), "connected");
  assert.ok(!heard.states.includes("offline"));
});

test("a socket that opens and says nothing is given up", async () => {
  const connection = new Connection(SRC, "auto");
  follow(connection);
  await pass(0);
  sockets[0].open();
  await pass(10_000);
  assert.ok(sockets[0].closed);
  await pass(500);
  assert.equal(sockets.length, 2);
});

test("a connection that falls silent is replaced", async () => {
  const { socket, heard } = await connected();
  await pass(40_000);
  socket.say({ type: "ping", timestamp: 1 });
  await pass(40_000);
  assert.ok(!socket.closed);
  await pass(20_000);
  assert.ok(socket.closed);
  assert.equal(heard.states.at(-1), "reconnecting");
});

test("when nothing works it is offline, and comes back to the socket", async () => {
  const { socket, heard } = await connected();
  socket.lose();
  for (let i = 0; i < 20; i += 1) {
    await pass(1_000);
    if (sockets.at(-1).readyState === 0) sockets.at(-1).lose();
    await settle();
  }
  assert.equal(heard.states.at(-1), "offline");
  assert.ok(polls.length >= 1);
  for (let i = 0; i < 40 && sockets.at(-1).readyState !== 0; i += 1) await pass(1_000);
  sockets.at(-1).open();
  sockets.at(-1).say({ type: "connected", channel: "wfr_1", cursor: "0-0" });
  assert.equal(heard.states.at(-1), "connected");
});

test("the back-off doubles up to 30 seconds, and starts over after ten healthy seconds", async () => {
  const { connection } = await connected();
  const waits = [];
  for (let i = 0; i < 9; i += 1) {
    const socket = sockets.at(-1);
    socket.lose();
    let waited = 0;
    while (sockets.at(-1) === socket) {
      await pass(500);
      waited += 500;
    }
    waits.push(waited);
    sockets.at(-1).open();
    sockets.at(-1).say({ type: "connected", channel: "wfr_1", cursor: "0-0" });
  }
  assert.deepEqual(waits, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]);
  await pass(10_000);
  const count = sockets.length;
  sockets.at(-1).lose();
  await pass(500);
  assert.equal(sockets.length, count + 1);
  assert.equal(connection.state, "reconnecting");
});

test("a poll that is refused is not repeated", async () => {
  for (const status of [401, 403, 404]) {
    const connection = new Connection(SRC, "poll");
    const { heard } = follow(connection);
    answers = [{ status }];
    polls = [];
    await pass(0);
    await settle();
    await pass(600_000);
    assert.equal(polls.length, 1);
    assert.equal(heard.refused, 1);
    assert.equal(heard.states.at(-1), "closed");
  }
});

test("a server in trouble is asked again", async () => {
  const connection = new Connection(SRC, "poll");
  const { heard } = follow(connection);
  answers = [{ status: 503 }, {}];
  await pass(0);
  await settle();
  assert.equal(heard.states.at(-1), "offline");
  await pass(500);
  await settle();
  assert.equal(heard.states.at(-1), "polling");
});

test("retry does not wait", async () => {
  const connection = new Connection(SRC, "poll");
  const { heard, subscription } = follow(connection);
  await pass(0);
  await settle();
  assert.equal(heard.states.at(-1), "offline");
  answers = [{}];
  subscription.retry();
  await settle();
  assert.equal(heard.states.at(-1), "polling");
});

test("who leaves is not told any more, and the last one closes the socket", async () => {
  const { connection, socket, heard, subscription } = await connected();
  const other = follow(connection, "wfr_2");
  await pass(0);
  subscription.close();
  assert.deepEqual(socket.sent.at(-1), { type: "unsubscribe", channels: ["wfr_1"] });
  socket.say(event("1-0"));
  assert.deepEqual(heard.ids, []);
  await pass(5_000);
  assert.ok(!socket.closed);
  other.subscription.close();
  await pass(1_000);
  assert.ok(socket.closed);
  assert.equal(connection.state, "idle");
});

test("a widget that is replaced keeps the socket", async () => {
  const { connection, socket, subscription } = await connected();
  subscription.close();
  follow(connection, "wfr_2");
  await pass(5_000);
  assert.ok(!socket.closed);
  assert.equal(sockets.length, 1);
});

test("a fresh token is told to the server", async () => {
  const { socket, subscription } = await connected(new Connection(SRC, "auto"), { token: "old" });
  socket.say(event("3-0"));
  subscription.setToken("old");
  await pass(0);
  assert.equal(socket.sent.length, 1);
  subscription.setToken("new");
  await pass(0);
  assert.deepEqual(socket.sent.at(-1), { type: "subscribe", channels: { wfr_1: "3-0" }, token: "new" });
});

test("a page that is hidden for long lets go, and goes on when it is seen", async () => {
  const page = new EventTarget();
  page.visibilityState = "visible";
  globalThis.document = page;
  globalThis.addEventListener = () => {};
  try {
    const { socket } = await connected();
    socket.say(event("3-0"));
    page.visibilityState = "hidden";
    page.dispatchEvent(new Event("visibilitychange"));
    await pass(50_000);
    socket.say({ type: "ping" });
    await pass(50_000);
    assert.ok(!socket.closed);
    for (let i = 0; i < 5; i += 1) {
      socket.say({ type: "ping" });
      await pass(50_000);
    }
    assert.ok(socket.closed);
    await pass(600_000);
    assert.equal(sockets.length, 1);
    page.visibilityState = "visible";
    page.dispatchEvent(new Event("visibilitychange"));
    sockets[1].open();
    assert.deepEqual(sockets[1].sent[0].channels, { wfr_1: "3-0" });
  } finally {
    delete globalThis.document;
  }
});
