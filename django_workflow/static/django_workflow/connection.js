// One connection per page and endpoint: a WebSocket, or polling where there is none. A listener's cursor, the id of the
// last event that it has handled, says where to go on after a break, and what is a repeat.

const BACKOFF_MS = 500;
const LONGEST_BACKOFF_MS = 30_000;
const HEALTHY_MS = 10_000;
const OPENING_MS = 10_000;
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

/** `transport`: auto, ws or poll. */
export function connectionFor(src, transport = "auto") {
  const url = new URL(src, globalThis.location?.href).href;
  const key = transport + url;
  if (!connections.has(key)) connections.set(key, new Connection(url, transport));
  return connections.get(key);
}

/** States: idle, connecting, connected, reconnecting, polling, offline (nothing works), closed (refused). */
export class Connection {
  state = "idle";
  #url;
  #transport;
  #channels = new Map(); // name -> listeners
  #unsent = new Set();
  #socket = null;
  #proved = false; // it brought something
  #socketFailures = 0;
  #noSocketUntil = 0;
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

  /** `listener`: cursor (an id, or "0-0"), token, onMessage, onGap, onRefused, onState. */
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
    if (this.#socket || this.#polling) return;
    this.#timers.clear("next");
    this.#open();
  }

  #ask(channel) {
    this.#timers.clear("linger");
    this.#unsent.add(channel);
    // Widgets subscribe together.
    if (this.#socket) this.#timers.set("send", 0, () => this.#send());
    else if (!this.#polling && (!this.#timers.next || this.state === "polling")) {
      this.#timers.set("next", 0, () => this.#open());
    }
  }

  #leave(channel, listener) {
    const listeners = this.#channels.get(channel);
    if (!listeners?.delete(listener) || listeners.size) return;
    this.#forget(channel);
    if (this.#socket?.readyState === 1) {
      this.#socket.send(JSON.stringify({ type: "unsubscribe", channels: [channel] }));
    }
    if (!this.#channels.size) this.#timers.set("linger", LINGER_MS, () => this.#rest("idle"));
  }

  #forget(channel) {
    this.#channels.delete(channel);
    this.#unsent.delete(channel);
  }

  #rest(state) {
    this.#timers.clear();
    this.#dropSocket();
    this.#polling?.abort();
    this.#polling = null;
    this.#setState(state);
  }

  #open() {
    if (this.#hidden || !this.#channels.size) return;
    const socket = this.#transport !== "poll" && globalThis.WebSocket;
    if (socket && (this.#transport === "ws" || Date.now() >= this.#noSocketUntil)) this.#openSocket();
    else this.#poll();
  }

  #openSocket() {
    if (this.state === "idle" || this.state === "closed") this.#setState("connecting");
    const socket = new WebSocket(`${this.#url.replace(/^http/, "ws")}ws/`);
    this.#socket = socket;
    this.#proved = false;
    this.#timers.set("silence", OPENING_MS, () => this.#socketClosed());
    socket.onopen = () => {
      this.#unsent = new Set(this.#channels.keys());
      this.#send();
    };
    socket.onmessage = ({ data }) => {
      if (!this.#proved) this.#timers.set("healthy", HEALTHY_MS, () => (this.#attempts = 0));
      this.#proved = true;
      this.#socketFailures = 0;
      this.#timers.set("silence", SILENCE_MS, () => this.#socketClosed());
      this.#handle(JSON.parse(data));
    };
    socket.onclose = ({ code }) => this.#socketClosed(code);
  }

  #send() {
    if (this.#socket?.readyState !== 1) return;
    for (const [token, names] of this.#groups(this.#unsent)) {
      const channels = Object.fromEntries(names.map((name) => [name, this.#cursorOf(name)]));
      this.#socket.send(JSON.stringify({ type: "subscribe", channels, token }));
    }
    this.#unsent.clear();
  }

  #dropSocket() {
    this.#timers.clear("silence", "healthy", "send");
    if (!this.#socket) return;
    this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null;
    this.#socket.close();
    this.#socket = null;
  }

  #socketClosed(code) {
    this.#dropSocket();
    if (code === FORBIDDEN) for (const channel of [...this.#channels.keys()]) this.#refuse(channel);
    if (!this.#channels.size) return;
    if (!this.#proved) this.#socketFailures += 1;
    if (this.#transport === "auto" && (this.#socketFailures > 1 || this.state === "polling")) {
      this.#poll();
      return;
    }
    if (this.state !== "offline") this.#setState("reconnecting");
    this.#openLater();
  }

  #openLater() {
    // Full jitter: many pages come back together.
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
      // So it is not the socket that is blocked.
      this.#noSocketUntil = 0;
      this.#socketFailures = 1;
      this.#setState("offline");
      this.#openLater();
      return;
    }
    this.#polling = null;
    this.#attempts = 0;
    this.#setState("polling");
    if (this.#socketFailures) this.#noSocketUntil = Date.now() + FIVE_MINUTES_MS;
    this.#socketFailures = 0;
    this.#pollMs = heard ? POLL_MS : Math.min(this.#pollMs * 1.5, LONGEST_POLL_MS);
    this.#timers.set("next", more || this.#unsent.size ? 0 : this.#pollMs, () => this.#open());
  }

  async #pollOnce(token, names, signal) {
    const url = new URL("poll/", this.#url);
    for (const name of names) {
      url.searchParams.append("channel", name);
      url.searchParams.append(`last_ack_${name}`, this.#cursorOf(name));
    }
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

  // Who is ahead drops repeats.
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
