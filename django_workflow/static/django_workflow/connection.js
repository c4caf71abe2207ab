// One connection per page and endpoint: a WebSocket, else server-sent events, else polling. A listener's cursor, the id of
// the last event that it has handled, says where to go on after a break, and what is a repeat.

const BACKOFF_MS = 500;
const LONGEST_BACKOFF_MS = 30_000;
const SETTLING_MS = 10_000;
const SILENCE_MS = 60_000;
const FIVE_MINUTES_MS = 300_000;
const POLL_MS = 2_000;
const LONGEST_POLL_MS = 15_000;
const LINGER_MS = 1_000;
const ATTEMPTS_IN_SILENCE = 3;
const CHANNELS_AT_ONCE = 50;
const FORBIDDEN = 4403;

export function compareIds(a, b) {
  const [aTime, aCount = 0] = a.split("-").map(Number);
  const [bTime, bCount = 0] = b.split("-").map(Number);
  return aTime - bTime || aCount - bCount;
}

export class Timers {
  set(name, ms, call) {
    this.clear(name);
    this[name] = setTimeout(() => {
      delete this[name];
      call();
    }, ms);
  }
  clear(...names) {
    for (const name of names.length ? names : Object.keys(this)) {
      clearTimeout(this[name]);
      delete this[name];
    }
  }
}

const connections = new Map();

export function connectionFor(src, transport = "auto") {
  const url = new URL(src, globalThis.location?.href).href;
  const key = transport + url;
  if (!connections.has(key)) connections.set(key, new Connection(url, transport));
  return connections.get(key);
}

// States: idle, connecting, connected, reconnecting, polling, offline, closed (refused).
export class Connection {
  state = "idle";
  #url;
  #transport;
  #channels = new Map(); // name -> listeners
  #unsent = new Set();
  #kind = null; // ws or sse
  #stream = null; // a socket, or event sources
  #proved = false; // it brought something
  #failures = 0;
  #failed = new Set(); // kinds that are blocked, or everything is
  #skipUntil = {};
  #attempts = 0;
  #pollMs = POLL_MS;
  #polling = null;
  #hidden = false;
  #timers = new Timers();

  constructor(url, transport) {
    this.#url = url;
    this.#transport = transport;
    if (!globalThis.document) return;
    document.addEventListener("visibilitychange", () => this.#visibilityChanged());
    for (const event of ["online", "pageshow"]) addEventListener(event, () => this.retry());
  }

  // A listener has cursor, token, onMessage, onGap, onRefused, onState.
  subscribe(channel, listener) {
    if (!this.#channels.has(channel)) this.#channels.set(channel, new Set());
    this.#channels.get(channel).add(listener);
    listener.onState(this.state);
    this.#ask(channel);
    return {
      retry: () => this.retry(),
      close: () => this.#leave(channel, listener),
      setToken: (token) => {
        if (token === listener.token) return;
        listener.token = token;
        this.#ask(channel);
      },
    };
  }

  retry() {
    if (this.#stream || this.#polling) return;
    this.#timers.clear("next");
    this.#open();
  }

  #ask(channel) {
    this.#timers.clear("linger");
    this.#unsent.add(channel);
    if (this.#stream) this.#timers.set("send", 0, () => this.#send());
    else if (!this.#polling && (!this.#timers.next || this.state === "polling")) {
      this.#timers.set("next", 0, () => this.#open());
    }
  }

  #leave(channel, listener) {
    const listeners = this.#channels.get(channel);
    if (!listeners?.delete(listener) || listeners.size) return;
    this.#forget(channel);
    this.#say({ type: "unsubscribe", channels: [channel] });
    if (!this.#channels.size) this.#timers.set("linger", LINGER_MS, () => this.#rest("idle"));
  }

  #forget(channel) {
    this.#channels.delete(channel);
    this.#unsent.delete(channel);
  }

  #rest(state) {
    this.#timers.clear();
    this.#dropStream();
    this.#polling?.abort();
    this.#polling = null;
    this.#setState(state);
  }

  #open() {
    if (this.#hidden || !this.#channels.size) return;
    const kinds = { auto: ["ws", "sse"], poll: [] }[this.#transport] ?? [this.#transport];
    const usable = (kind) => globalThis[kind === "ws" ? "WebSocket" : "EventSource"] && !this.#failed.has(kind);
    const kind = kinds.find((one) => usable(one) && !(Date.now() < this.#skipUntil[one]));
    if (kind) this.#openStream(kind);
    else this.#poll();
  }

  #openStream(kind) {
    if (this.state === "idle" || this.state === "closed") this.#setState("connecting");
    this.#kind = kind;
    this.#proved = false;
    this.#timers.set("silence", SETTLING_MS, () => this.#streamClosed());
    this.#stream = kind === "ws" ? [this.#socket()] : this.#groups(this.#channels.keys()).map((group) => this.#source(group));
    for (const stream of this.#stream) {
      stream.onmessage = ({ data }) => this.#heard(data);
      stream.onerror = stream.onclose = ({ code }) => this.#streamClosed(code);
    }
  }

  #socket() {
    const socket = new WebSocket(`${this.#url.replace(/^http/, "ws")}ws/`);
    socket.onopen = () => {
      this.#unsent = new Set(this.#channels.keys());
      this.#send();
    };
    return socket;
  }

  #source([token, names]) {
    this.#unsent.clear();
    const url = this.#urlOf("sse/", names);
    if (token) url.searchParams.set("token", token);
    return new EventSource(url);
  }

  #heard(data) {
    if (!this.#proved) this.#timers.set("healthy", SETTLING_MS, () => (this.#attempts = 0));
    this.#proved = true;
    this.#works();
    this.#timers.set("silence", SILENCE_MS, () => this.#streamClosed());
    this.#handle(JSON.parse(data));
  }

  // Something gets through, so what did not is blocked.
  #works() {
    for (const kind of this.#failed) this.#skipUntil[kind] = Date.now() + FIVE_MINUTES_MS;
    this.#failed.clear();
    this.#failures = 0;
  }

  #send() {
    if (this.#kind === "sse") {
      this.#dropStream();
      this.#openStream("sse");
      return;
    }
    for (const [token, names] of this.#groups(this.#unsent)) {
      const channels = Object.fromEntries(names.map((name) => [name, this.#cursorOf(name)]));
      if (!this.#say({ type: "subscribe", channels, token })) return;
    }
    this.#unsent.clear();
  }

  #say(frame) {
    const [socket] = this.#stream ?? [];
    if (this.#kind !== "ws" || socket?.readyState !== 1) return false;
    socket.send(JSON.stringify(frame));
    return true;
  }

  #dropStream() {
    this.#timers.clear("silence", "healthy", "send");
    for (const stream of this.#stream ?? []) {
      stream.onopen = stream.onmessage = stream.onerror = stream.onclose = null;
      stream.close();
    }
    this.#stream = null;
  }

  #streamClosed(code) {
    this.#dropStream();
    if (code === FORBIDDEN) for (const channel of [...this.#channels.keys()]) this.#refuse(channel);
    if (!this.#channels.size) return;
    if (!this.#proved) this.#failures += 1;
    if (this.#transport === "auto" && (this.#failures > 1 || this.state === "polling")) {
      this.#failed.add(this.#kind);
      this.#failures = 0;
      this.#open();
      return;
    }
    if (this.state !== "offline") this.#setState("reconnecting");
    this.#openLater();
  }

  #openLater() {
    const ms = Math.random() * Math.min(BACKOFF_MS * 2 ** this.#attempts, LONGEST_BACKOFF_MS);
    this.#attempts += 1;
    if (this.#attempts > ATTEMPTS_IN_SILENCE) this.#setState("offline");
    this.#timers.set("next", ms, () => this.#open());
  }

  async #poll() {
    const polling = (this.#polling = new AbortController());
    this.#unsent.clear();
    let heard = false;
    let more = false;
    try {
      for (const [token, names] of this.#groups(this.#channels.keys())) {
        const answer = await this.#pollOnce(token, names, polling.signal);
        if (polling !== this.#polling) return;
        heard ||= answer.messages.length > 0;
        more ||= answer.more;
      }
    } catch {
      if (polling !== this.#polling) return;
      this.#polling = null;
      // So it is not the streams that are blocked.
      this.#skipUntil = {};
      this.#failed.clear();
      this.#failures = 1;
      this.#setState("offline");
      this.#openLater();
      return;
    }
    this.#polling = null;
    this.#attempts = 0;
    this.#setState("polling");
    this.#works();
    this.#pollMs = heard ? POLL_MS : Math.min(this.#pollMs * 1.5, LONGEST_POLL_MS);
    this.#timers.set("next", more || this.#unsent.size ? 0 : this.#pollMs, () => this.#open());
  }

  async #pollOnce(token, names, signal) {
    const url = this.#urlOf("poll/", names);
    const headers = token ? { "X-Workflow-Token": token } : {};
    const response = await fetch(url, { headers, signal, credentials: "same-origin", cache: "no-store" });
    if ([400, 401, 403, 404].includes(response.status)) {
      for (const name of names) this.#refuse(name);
      return { messages: [] };
    }
    if (!response.ok) throw new Error(response.status);
    const answer = await response.json();
    if (signal.aborted) return answer;
    for (const message of answer.messages) this.#handle(message);
    return answer;
  }

  #urlOf(path, names) {
    const url = new URL(path, this.#url);
    for (const name of names) {
      url.searchParams.append("channel", name);
      url.searchParams.append(`last_ack_${name}`, this.#cursorOf(name));
    }
    return url;
  }

  #handle(message) {
    const { type, channel, id } = message;
    if (type === "connected") {
      this.#setState("connected");
    } else if (type === "gap") {
      for (const listener of this.#listeners(channel)) {
        listener.cursor = "0-0"; // what is kept follows
        listener.onGap?.(message);
      }
    } else if (type === "error" && message.code === "forbidden") {
      this.#refuse(channel);
    } else if (type === "reconnect") {
      this.#dropStream();
      this.#open();
    } else if (!type) {
      for (const listener of this.#listeners(channel)) {
        if (compareIds(id, listener.cursor) <= 0) continue;
        try {
          listener.onMessage(message);
        } catch (error) {
          reportError(error);
        }
        listener.cursor = id;
      }
    }
  }

  #refuse(channel) {
    const listeners = this.#listeners(channel);
    this.#forget(channel);
    if (!this.#channels.size) this.#rest("closed");
    for (const listener of listeners) {
      listener.onState("closed");
      listener.onRefused?.();
    }
  }

  #listeners(channel) {
    return [...(this.#channels.get(channel) ?? [])];
  }

  #cursorOf(channel) {
    return this.#listeners(channel).map(({ cursor }) => cursor).sort(compareIds)[0];
  }

  #groups(channels) {
    const groups = [];
    for (const channel of channels) {
      const token = this.#listeners(channel).findLast((listener) => listener.token)?.token;
      const group = groups.find(([other, names]) => other === token && names.length < CHANNELS_AT_ONCE);
      if (group) group[1].push(channel);
      else groups.push([token, [channel]]);
    }
    return groups;
  }

  #visibilityChanged() {
    if (document.visibilityState === "hidden") {
      this.#timers.set("hidden", FIVE_MINUTES_MS, () => {
        this.#hidden = true;
        this.#rest("idle");
      });
      return;
    }
    this.#timers.clear("hidden");
    this.#hidden = false;
    this.retry();
  }

  #setState(state) {
    if (state === this.state) return;
    this.state = state;
    for (const channel of [...this.#channels.keys()]) {
      for (const listener of this.#listeners(channel)) listener.onState(state);
    }
  }
}
