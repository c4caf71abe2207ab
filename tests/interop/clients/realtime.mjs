// The official realtime client, which is a React provider, without a browser: says each connection that it opens, and
// each event that it hears, as a line of JSON. REALTIME_URL and REALTIME_CHANNELS say what it follows.

import { createInterface } from "node:readline";
import { EventSource } from "eventsource";
import { createElement } from "react";
import { create } from "react-test-renderer";
import { RealtimeProvider, createRealtime } from "@upstash/realtime/client";

const say = (value) => console.log(JSON.stringify(value));

globalThis.EventSource = class extends EventSource {
  constructor(url, options) {
    super(url, options);
    say({ opened: url });
  }
};

const { useRealtime } = createRealtime();

function Listener() {
  const { status } = useRealtime({ channels: process.env.REALTIME_CHANNELS.split(","), onData: (heard) => say({ heard }) });
  if (status === "connected") say({ status });
  return null;
}

say({ ready: true });
create(createElement(RealtimeProvider, { api: { url: process.env.REALTIME_URL } }, createElement(Listener)));
// The tests hold the other end of our input: when they are gone, so are we.
createInterface({ input: process.stdin }).on("close", () => process.exit());
