// Runs JavaScript with the official clients: one line of JSON in, {code, arguments}, and one out, {value} or {error}.
// The code sees `workflow` (the client of @upstash/workflow), `qstash` (of @upstash/qstash), `receiver`, and its
// arguments by their names. Everything is configured by the environment, as in an application.

import { createInterface } from "node:readline";
import { Client as QStash, Receiver } from "@upstash/qstash";
import { Client as Workflow } from "@upstash/workflow";

const { QSTASH_URL, QSTASH_TOKEN, QSTASH_CURRENT_SIGNING_KEY, QSTASH_NEXT_SIGNING_KEY } = process.env;
const clients = {
  workflow: new Workflow({ baseUrl: QSTASH_URL, token: QSTASH_TOKEN }),
  qstash: new QStash({ baseUrl: QSTASH_URL, token: QSTASH_TOKEN }),
  receiver: new Receiver({
    currentSigningKey: QSTASH_CURRENT_SIGNING_KEY,
    nextSigningKey: QSTASH_NEXT_SIGNING_KEY,
  }),
  QStash,
};
const AsyncFunction = (async () => {}).constructor;

async function run({ code, arguments: named }) {
  const names = { ...clients, ...named };
  try {
    return { value: await new AsyncFunction(...Object.keys(names), code)(...Object.values(names)) };
  } catch (error) {
    return { error: { name: error?.name, message: String(error?.message ?? error), status: error?.status } };
  }
}

console.log(JSON.stringify({ ready: true }));
for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await run(JSON.parse(line))));
}
