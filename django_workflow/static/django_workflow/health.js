// The health page's test of realtime: follows the test channel by each transport at once, has the server emit an event,
// and shows how soon it arrived. Without JavaScript the form is posted, and the server tells what it found.

import { connectionFor } from "./connection.js";

const TRANSPORTS = ["ws", "sse", "poll"];
const OPENING_MS = 3_000;
const LONGEST_MS = 10_000;

function cell(name) {
  return document.querySelector(`[data-probe="${name}"]`);
}

// Gives when the transport is connected (or after a while), and a promise of when the event of an id was heard of.
function follow(form, transport) {
  const { source, channel, cursor, token } = form.dataset;
  let arrived;
  const heard = new Map();
  let wanted = null;
  const event = new Promise((resolve) => { arrived = resolve; });
  const opened = new Promise((resolve) => {
    setTimeout(resolve, OPENING_MS);
    const subscription = connectionFor(source, transport).subscribe(channel, {
      cursor,
      token,
      onMessage(message) {
        heard.set(message.id, performance.now());
        if (message.id === wanted) arrived(heard.get(wanted));
      },
      onGap() {},
      onRefused: resolve,
      onState(state) {
        if (state === "connected" || state === "polling") resolve();
      },
    });
    event.then(() => subscription.close());
    setTimeout(() => { subscription.close(); arrived(null); }, OPENING_MS + LONGEST_MS);
  });
  return {
    opened,
    hear(id) {
      wanted = id;
      if (heard.has(id)) arrived(heard.get(id));
      return event;
    },
  };
}

async function test(form) {
  const words = form.dataset;
  const inMs = (ms) => words.ms.replace("%(ms)s", Math.round(ms * 10) / 10);
  form.querySelector("button").disabled = true;
  cell("error").textContent = "";
  form.nextElementSibling.hidden = false;
  for (const transport of TRANSPORTS) cell(transport).textContent = words.connecting;
  cell("store").textContent = cell("layer").textContent = "";
  try {
    const followed = TRANSPORTS.map((transport) => follow(form, transport));
    await Promise.all(followed.map(({ opened }) => opened));
    for (const transport of TRANSPORTS) cell(transport).textContent = words.waiting;
    const started = performance.now();
    const response = await fetch(form.action, {
      method: "POST", body: new FormData(form), headers: { Accept: "application/json" },
    });
    if (!response.ok) throw new Error(response.status);
    const found = await response.json();
    form.dataset.cursor = found.id || form.dataset.cursor;
    cell("error").textContent = found.error;
    cell("store").textContent = found.store === null ? "–" : inMs(found.store);
    cell("layer").textContent = found.layer === null ? words.noLayer : inMs(found.layer);
    await Promise.all(TRANSPORTS.map(async (transport, index) => {
      const at = found.id ? await followed[index].hear(found.id) : null;
      cell(transport).textContent = at === null ? words.none : inMs(Math.max(at - started, 0));
    }));
  } catch {
    cell("error").textContent = words.failed;
    for (const transport of TRANSPORTS) cell(transport).textContent = "";
  }
  form.querySelector("button").disabled = false;
}

for (const form of document.querySelectorAll(".wfa-probe")) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    test(form);
  });
}
