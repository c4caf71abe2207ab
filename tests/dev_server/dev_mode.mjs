// An application as its developer starts it with QSTASH_DEV=true: nothing is configured, the SDK finds the server.
// Publishes to itself, runs a workflow of its own, and prints what came of both as one line of JSON.

import express from "express";
import { Client, Receiver } from "@upstash/qstash";
import { Client as Workflow } from "@upstash/workflow";
import { serve } from "@upstash/workflow/express";

const app = express();
const received = promised();
const finished = promised();

function promised() {
  let resolve;
  const promise = new Promise((settle) => (resolve = settle));
  return { promise, resolve };
}

app.post("/hook", express.text({ type: "*/*" }), async (request, response) => {
  const signature = request.get("Upstash-Signature");
  received.resolve(await new Receiver().verify({ signature, body: request.body }));
  response.end();
});
app.use(express.json());
app.post(
  "/workflow",
  serve(async (context) => {
    const greeting = await context.run("greet", () => `hello ${context.requestPayload}`);
    await context.sleep("a moment", 1);
    await context.run("tell", () => finished.resolve(greeting));
  }),
);

const server = app.listen(0, "127.0.0.1", async () => {
  const origin = `http://127.0.0.1:${server.address().port}`;
  await new Client().publishJSON({ url: `${origin}/hook`, body: { n: 1 } });
  await new Workflow().trigger({ url: `${origin}/workflow`, body: "world" });
  console.log(JSON.stringify({ verified: await received.promise, greeting: await finished.promise }));
  process.exit();
});
