// Keeps a page fresh without a reload: the parts marked `data-live` are taken from the same page, fetched again, when a
// widget on it reports news, and forms marked `data-live-form` are sent in place. Without this script the page works
// as it is; all it adds is comfort.

const PAUSE = 200; // milliseconds: news come in bursts
const NEWS = ["workflow:update", "workflow:step", "workflow:waiting", "workflow:finish"];

let timer = null;
let asked = 0;

function soon(delay = PAUSE) {
  if (timer === null && document.querySelector("[data-live]:not(#messages)")) {
    timer = setTimeout(refresh, delay);
  }
}

async function refresh() {
  timer = null;
  const mine = ++asked;
  const response = await fetch(location.href, { headers: { Accept: "text/html" } }).catch(() => null);
  if (response?.ok && mine === asked) show(await response.text());
}

function show(html) {
  const fresh = new DOMParser().parseFromString(html, "text/html");
  for (const part of document.querySelectorAll("[data-live]")) {
    const next = fresh.getElementById(part.id);
    // What a form was answered is said once: it stays until there is something else to say.
    const isSilent = part.id === "messages" && next && !next.textContent.trim();
    if (next && !isSilent && !isSame(part, next)) replace(part, next);
  }
  // A page that knows of something still to come says when to look again.
  const again = fresh.querySelector("[data-live-again]");
  if (again) soon(Number(again.dataset.liveAgain));
}

function isSame(part, next) {
  const widgets = [part, next].map((element) => element.querySelector("workflow-progress")?.getAttribute("run"));
  // A widget keeps itself up to date; only another run's takes its place.
  if (widgets[0] && widgets[0] === widgets[1]) return true;
  return comparable(part) === comparable(next);
}

function comparable(element) {
  const copy = element.cloneNode(true);
  copy.querySelectorAll("[name=csrfmiddlewaretoken]").forEach((input) => input.remove());
  copy.querySelectorAll("button").forEach((button) => button.removeAttribute("disabled"));
  return copy.textContent.replace(/\s+/g, " ") + copy.querySelectorAll("form, button, a, tr").length;
}

function replace(part, next) {
  const focused = part.contains(document.activeElement) ? document.activeElement : null;
  part.replaceChildren(...[...next.childNodes].map((node) => document.importNode(node, true)));
  if (!focused) return;
  const twin = focused.name && part.querySelector(`[name="${CSS.escape(focused.name)}"][value="${CSS.escape(focused.value)}"]`);
  if (twin) {
    twin.focus();
  } else {
    // The focused control is gone: stay at this place of the page.
    part.tabIndex = -1;
    part.focus({ preventScroll: true });
  }
}

document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (!form.matches("form[data-live-form]")) return;
  event.preventDefault();
  const body = new FormData(form, event.submitter);
  const buttons = form.querySelectorAll("button");
  buttons.forEach((button) => (button.disabled = true));
  asked += 1; // whatever is on its way is older than the answer to this
  try {
    const response = await fetch(form.action, { method: "POST", body, headers: { Accept: "text/html" } });
    if (!response.ok) throw new Error(response.statusText);
    if (new URL(response.url).pathname !== location.pathname) {
      location.assign(response.url);
      return;
    }
    show(await response.text());
    soon();
  } catch {
    // Let the browser do it: it shows what went wrong.
    buttons.forEach((button) => (button.disabled = false));
    form.removeAttribute("data-live-form");
    form.requestSubmit(event.submitter);
  } finally {
    buttons.forEach((button) => (button.disabled = false));
  }
});

NEWS.forEach((name) => document.addEventListener(name, () => soon()));
// The widget was rendered after the rest of the page: what came in between is no news to it.
if (document.querySelector("workflow-progress:not([status=success], [status=failed], [status=canceled])")) soon();
if (document.querySelector("[data-live-again]")) soon(Number(document.querySelector("[data-live-again]").dataset.liveAgain));
