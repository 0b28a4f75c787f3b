// A WAMP client in one file, for the pages of these examples: one session over one WebSocket.
//
//   const session = await join("realm1");
//   const {args} = await session.call("com.example.add", [2, 3]);
//   await session.subscribe("com.example.news", ({args, topic}) => show(args));
//   await session.publish("com.example.news", ["hello"]);
//   await session.register("com.example.sensor", async () => 21.5);

const NAMES = {
  1: "HELLO", 2: "WELCOME", 3: "ABORT", 6: "GOODBYE", 8: "ERROR", 16: "PUBLISH", 17: "PUBLISHED",
  32: "SUBSCRIBE", 33: "SUBSCRIBED", 34: "UNSUBSCRIBE", 35: "UNSUBSCRIBED", 36: "EVENT",
  48: "CALL", 49: "CANCEL", 50: "RESULT", 64: "REGISTER", 65: "REGISTERED", 68: "INVOCATION",
  69: "INTERRUPT", 70: "YIELD",
};
const CODES = Object.fromEntries(Object.entries(NAMES).map(([code, name]) => [name, Number(code)]));
const FEATURES = {
  caller: {progressive_call_results: true, call_canceling: true, progressive_call_invocations: true},
  callee: {progressive_call_results: true, call_canceling: true},
  publisher: {},
  subscriber: {pattern_based_subscription: true},
};

export class WampError extends Error {
  constructor(uri, args = [], kwargs = {}) {
    super(args[0] ?? kwargs.message ?? uri);
    Object.assign(this, {uri, args, kwargs});
  }
}

/** Join a realm; resolves to a session, or rejects with a WampError that says why the server refused.
 *  `details` go into HELLO, `onend(reason)` is called when the session ends. */
export function join(realm, {path = "ws", details = {}, onend = () => {}} = {}) {
  const url = new URL(path, location).href.replace(/^http/, "ws");
  const socket = new WebSocket(url, "wamp.2.json");
  const requests = new Map(), handlers = new Map(), procedures = new Map(), running = new Map();
  let lastRequest = 0, session = null, reason = "the connection was lost";

  function send(name, ...fields) {
    if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify([CODES[name], ...fields]));
  }

  function request(name, fields, more = {}) {
    const id = ++lastRequest;
    const reply = new Promise((resolve, reject) => requests.set(id, {resolve, reject, ...more}));
    if (socket.readyState === WebSocket.OPEN) send(name, id, ...fields);
    else settle(id, "reject", new WampError("no connection", [reason ?? "the session is over"]));
    return Object.assign(reply, {id});
  }

  function settle(id, how, value) {
    requests.get(id)?.[how](value);
    requests.delete(id);
  }

  /** Wait until the socket has sent nearly everything, so that chunks don't pile up in the browser. */
  async function drained() {
    while (socket.readyState === WebSocket.OPEN && socket.bufferedAmount > 1 << 20) {
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }

  /** Send the chunks of a stream: each is a CALL with the same request id as the first CALL. */
  async function stream(id, uri, chunks) {
    for await (const chunk of chunks) {
      if (!requests.has(id)) return;  // the call has been answered
      send("CALL", id, {progress: true}, uri, [chunk]);
      await drained();
    }
    if (requests.has(id)) send("CALL", id, {}, uri);
  }

  async function answer(id, procedure, details, args, kwargs) {
    const {signal} = running.set(id, new AbortController()).get(id);
    try {
      const report = (...values) => send("YIELD", id, {progress: true}, values);
      send("YIELD", id, {}, [await procedure({args, kwargs, details, report, signal})]);
    } catch (error) {
      send("ERROR", CODES.INVOCATION, id, {}, error.uri ?? "wamp.error.runtime_error", [error.message]);
    }
    running.delete(id);
  }

  const made = {
    /** Call a procedure; returns a promise of {args, kwargs} with a method cancel(). `onprogress`
     *  gets {args, kwargs} of every report. `chunks`, an (async) iterable, is streamed into the call
     *  after its arguments. All other items are options, such as `timeout` in milliseconds. */
    call(uri, args = [], {kwargs = {}, onprogress, chunks, ...options} = {}) {
      if (onprogress) options.receive_progress = true;
      if (chunks) options.progress = true;
      const reply = request("CALL", [options, uri, args, kwargs], {onprogress});
      if (chunks) stream(reply.id, uri, chunks);
      return Object.assign(reply, {cancel: () => send("CANCEL", reply.id, {mode: "kill"})});
    },
    /** Subscribe; `onevent` gets {args, kwargs, topic, publication, details} of every event.
     *  Resolves to the subscription's id. */
    subscribe: (topic, onevent, options = {}) =>
      request("SUBSCRIBE", [options, topic], {onanswer: (id) => handlers.set(id, {topic, onevent})}),
    /** Publish; resolves to the publication's id. */
    publish: (topic, args = [], {kwargs = {}, ...options} = {}) =>
      request("PUBLISH", [{acknowledge: true, ...options}, topic, args, kwargs]),
    /** Let others call `procedure({args, kwargs, details, report, signal})`, which may be async.
     *  `report(...)` sends progress, and the `signal` is aborted when the call is cancelled. */
    register: (uri, procedure, options = {}) =>
      request("REGISTER", [options, uri], {onanswer: (id) => procedures.set(id, procedure)}),
    leave: () => send("GOODBYE", {}, "wamp.close.close_realm"),
  };

  return new Promise((joined, refused) => {
    const receive = {
      WELCOME(id, welcome) { joined(session = Object.assign(made, {id, welcome})); },
      ABORT({message}, uri) { refused(new WampError(uri, [message])); },
      GOODBYE({message}, uri) {
        reason = uri === "wamp.close.goodbye_and_out" ? null : message ?? uri;
        if (reason) send("GOODBYE", {}, "wamp.close.goodbye_and_out");
        socket.close();
      },
      ERROR(type, id, details, uri, args, kwargs) { settle(id, "reject", new WampError(uri, args, kwargs)); },
      SUBSCRIBED: settleWithId,
      REGISTERED: settleWithId,
      PUBLISHED(id, publication) { settle(id, "resolve", publication); },
      EVENT(subscription, publication, details, args = [], kwargs = {}) {
        const {topic, onevent} = handlers.get(subscription) ?? {};
        onevent?.({args, kwargs, topic: details.topic ?? topic, publication, details});
      },
      RESULT(id, details, args = [], kwargs = {}) {
        if (details.progress) requests.get(id)?.onprogress?.({args, kwargs});
        else settle(id, "resolve", {args, kwargs});
      },
      INVOCATION(id, registration, details, args = [], kwargs = {}) {
        answer(id, procedures.get(registration), details, args, kwargs);
      },
      INTERRUPT(id) { running.get(id)?.abort(new WampError("wamp.error.canceled", ["cancelled"])); },
    };

    function settleWithId(id, given) {
      requests.get(id)?.onanswer(given);  // before anything else can arrive for it
      settle(id, "resolve", given);
    }

    const roles = Object.fromEntries(Object.entries(FEATURES).map(([role, features]) => [role, {features}]));
    socket.onopen = () => send("HELLO", realm, {roles, ...details});
    socket.onmessage = ({data}) => {
      const [code, ...fields] = JSON.parse(data);
      receive[NAMES[code]]?.(...fields);
    };
    socket.onclose = () => {
      refused(new WampError("no connection", ["The server can't be reached."]));
      for (const id of [...requests.keys()]) settle(id, "reject", new WampError("no connection", [reason ?? "the session is over"]));
      for (const call of running.values()) call.abort();
      if (session) onend(reason);
    };
  });
}
