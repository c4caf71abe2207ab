// Shows the words that a step emits, as they come. It listens to the run's channel beside the widget, on the same
// connection, and from the first word on: what was said before this page was loaded comes again.

import { createWorkflowStore } from "../django_workflow/store.js";

const paper = document.querySelector("[data-words]");
const widget = document.querySelector("workflow-progress[run]");

if (paper && widget) {
  const words = [];
  const store = createWorkflowStore({ src: widget.getAttribute("src") });
  store.subscribe((message) => {
    if (message?.event !== "note.word") return;
    // By its number: a step that is tried again says its words again.
    words[message.data.number] = message.data.word;
    // The page came with the words so far: until as many have come again it stays as it is.
    const text = words.join("");
    if (text.length > paper.textContent.length) paper.textContent = text;
  });
  store.watch(widget.getAttribute("run"), { token: widget.getAttribute("token"), cursor: "0-0" });
  widget.addEventListener("workflow:finish", () => {
    store.disconnect();
    paper.removeAttribute("aria-busy");
  });
}
